"""From answers to counts, intervals and paired tests.

Reads and writes nothing; `eval/run/stage.py` calls it with every answer of every model.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from eval.run.answers import Expected
from eval.run.paired_questions import compared
from eval.run.results import FORMAT, Answer, Comparison, Measured, Rate, Results, TaskRun
from pipelines.statistics import Interval, clustered_share, pass_at_k

ALL = ""
_Row = TypeVar("_Row", Expected, Answer)


def assembled(
    suite: str,
    models: Sequence[Measured],
    tasks: Sequence[TaskRun],
    expected: Mapping[str, Sequence[Expected]],
    answers: Sequence[Answer],
) -> Results:
    """The whole evaluation, counted.

    Args:
        suite: Its name, "" where tasks were chosen.
        models: In the order to show; later ones are compared with the first.
        tasks: As they were asked.
        expected: Every answer that a task was to have, by task.
        answers: Those that were given.
    """
    labels = [model.label for model in models]
    return Results(
        format=FORMAT,
        suite=suite,
        models=tuple(models),
        tasks=tuple(tasks),
        rates=tuple(rates(labels, expected, answers)),
        comparisons=tuple(comparisons(labels, expected, answers)),
        answers=tuple(answers),
    )


def rates(
    labels: Sequence[str], expected: Mapping[str, Sequence[Expected]], answers: Sequence[Answer]
) -> Iterator[Rate]:
    """Counts and intervals of every model on every task, over all of it and by category."""
    for label in labels:
        for task, due in expected.items():
            mine = [one for one in answers if (one.model, one.task) == (label, task)]
            for group in groups(due):
                yield _rate(label, task, group, _of(due, group), _of(mine, group))


def comparisons(
    labels: Sequence[str], expected: Mapping[str, Sequence[Expected]], answers: Sequence[Answer]
) -> Iterator[Comparison]:
    """The first model against each later one, paired by question."""
    first, *others = labels
    for second in others:
        for task, due in expected.items():
            own = {label: [one for one in answers if (one.model, one.task) == (label, task)] for label in labels}
            for group in groups(due):
                ids = dict.fromkeys(one.id for one in _of(due, group))
                each = len(_of(due, group)) // len(ids)
                yield compared(task, group, (first, second), own, ids, each)


def groups(due: Sequence[Expected]) -> list[str]:
    """All of a task, and its categories where it has several."""
    categories = list(dict.fromkeys(one.category for one in due))
    return [ALL, *(categories if len(categories) > 1 else [])]


def _of(rows: Sequence[_Row], group: str) -> list[_Row]:
    return [one for one in rows if group in (ALL, one.category)]


def _rate(label: str, task: str, group: str, due: Sequence[Expected], mine: Sequence[Answer]) -> Rate:
    values: dict[str, list[float | None]] = defaultdict(list)
    given = {(one.id, one.epoch): one.value for one in mine}
    for one in due:
        values[one.id].append(given.get((one.id, one.epoch)))
    scored = [one.value for one in mine if one.value is not None]
    several = len(due) > len(values)
    hits = sum(scored)
    return Rate(
        model=label,
        task=task,
        group=group,
        questions=len(values),
        expected=len(due),
        n=len(mine),
        hits=hits,
        misses=len(scored) - hits,
        unscored=sum(bool(one.unscored) for one in mine),
        errored=sum(bool(one.error) for one in mine),
        truncated=sum(one.truncated for one in mine),
        rate=_interval(values),
        pass_at=_pass_at(values) if several else {},
    )


def _interval(values: Mapping[str, Sequence[float | None]]) -> Interval:
    """The rate over all that was due, between all that is unknown being no hit and all of it being one."""
    low, high = (
        clustered_share([[missing if one is None else one for one in row] for row in values.values()])
        for missing in (0.0, 1.0)
    )
    return Interval(low.rate, low.low, high.high)


def _pass_at(values: Mapping[str, Sequence[float | None]]) -> dict[int, float]:
    """pass@k for k = 1, 2, 4 and so on, and for all samples; what is unknown has not passed."""
    most = min(map(len, values.values()))
    ks = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    return {
        k: sum(pass_at_k(len(row), sum(one == 1 for one in row), k) for row in values.values()) / len(values)
        for k in ks
    }
