"""Paired tests between models that were evaluated apart: each row against the first of its base model, by question.

Reads rows and answers of one section; writes nothing. What an evaluation compared itself is not compared again, and
models that were not asked the same questions in the same way never are.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from eval.report_figures import Row
from eval.results import Answer, Comparison
from pipelines.statistics import detectable, mcnemar_exact, paired


def across(
    rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]], known: Sequence[Comparison]
) -> Iterator[Comparison]:
    """The comparisons that `known` lacks: of a base model's raw row, or its first, with each other one.

    Args:
        rows: In the order of the table.
        answers: A row's name -> its answers.
        known: What evaluations compared themselves, by rows' names.
    """
    done = {(one.task, frozenset((one.first, one.second))) for one in known}
    by_base: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_base[row.measured.base.casefold()].append(row)
    for first, *others in by_base.values():
        for second in others:
            for task, figure in second.figures.items():
                same_way = task in first.figures and first.figures[task].mark == figure.mark
                if not same_way or (task, frozenset((first.name, second.name))) in done:
                    continue
                outcomes = [_outcomes(task, answers[row.name]) for row in (first, second)]
                if outcomes[0].keys() == outcomes[1].keys():
                    test = mcnemar_exact(paired(*outcomes))
                    yield Comparison(task, "", first.name, second.name, test, detectable(test.pairs))


def _outcomes(task: str, answers: Sequence[Answer]) -> dict[str, bool]:
    """Whether most of a question's answers are hits, by its id; one without a verdict is none."""
    values: dict[str, list[float]] = defaultdict(list)
    for one in answers:
        if one.task == task:
            values[one.id].append(one.value or 0.0)
    return {name: sum(found) > len(found) / 2 for name, found in values.items()}
