"""Two models on the same questions: each question's outcome, and the exact test over them.

Reads and writes nothing. `eval/run/metrics.py` compares the models of an evaluation, `eval/report/paired_tests.py`
those of several.
"""

from collections.abc import Iterable, Mapping, Sequence

from eval.run.results import Answer, Comparison
from pipelines.statistics import detectable, mcnemar_exact, outcome_of, paired


def outcomes(answers: Iterable[Answer], ids: Iterable[str], each: int) -> dict[str, bool | None]:
    """Whether most answers to a question are hits, by its id; None where too many lack a verdict.

    Args:
        answers: Of one model to one task.
        ids: The questions; one without any answer is unknown.
        each: Answers that a question was to have.
    """
    values: dict[str, list[float | None]] = {name: [] for name in ids}
    for one in answers:
        if one.id in values:
            values[one.id].append(one.value)
    return {name: outcome_of(found, each) for name, found in values.items()}


def compared(
    task: str,
    group: str,
    models: tuple[str, str],
    answers: Mapping[str, Sequence[Answer]],
    ids: Iterable[str],
    each: int,
) -> Comparison:
    """The paired test of two models on those questions of a task.

    Args:
        group: The group that the questions are, "" for all of them.
        models: The first and the second.
        answers: Each model's to the task.
        ids: The questions.
        each: Answers that a question was to have.
    """
    names = list(ids)
    first, second = models
    test = mcnemar_exact(paired(*(outcomes(answers[model], names, each) for model in models)))
    return Comparison(task, group, first, second, test, detectable(test.pairs))
