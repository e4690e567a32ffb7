"""From scored samples to counts, intervals and paired tests.

Reads and writes nothing; `eval/run.py` calls it with every sample of every model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from eval.scores import Comparison, Group, Measure, ScoredSample
from eval.tasks.refusal import Question
from pipelines.records import Kind
from pipelines.statistics import mcnemar_exact, paired, wilson


def groups(
    labels: Iterable[str], questions: Mapping[str, Sequence[Question]], samples: Sequence[ScoredSample]
) -> Iterator[Group]:
    """Counts and intervals of every model on every set's questions of one kind."""
    for label in labels:
        for name, kind in _cells(questions):
            rows = [one for one in samples if (one.model, one.set, one.kind) == (label, name, kind)]
            refused = sum(one.refused is True for one in rows)
            well_formed = sum(one.well_formed for one in rows)
            yield Group(
                model=label,
                set=name,
                kind=kind,
                n=len(rows),
                expected=sum(one.kind == kind for one in questions[name]),
                refused=refused,
                complied=sum(one.refused is False for one in rows),
                unscored=sum(one.refused is None for one in rows),
                well_formed=well_formed,
                truncated=sum(one.truncated for one in rows),
                unclosed=sum(one.unclosed for one in rows),
                refused_rate=wilson(refused, len(rows)),
                well_formed_rate=wilson(well_formed, len(rows)),
            )


def comparisons(
    labels: Iterable[str], questions: Mapping[str, Sequence[Question]], samples: Sequence[ScoredSample]
) -> Iterator[Comparison]:
    """The first model against each later one, paired by question. An unscored answer counts as not refused."""
    first, *others = labels
    measures: tuple[Measure, ...] = get_args(Measure)
    for second in others:
        for name, kind in _cells(questions):
            for measure in measures:
                outcomes = {
                    label: {
                        one.id: getattr(one, measure) is True
                        for one in samples
                        if (one.model, one.set, one.kind) == (label, name, kind)
                    }
                    for label in (first, second)
                }
                test = mcnemar_exact(paired(outcomes[first], outcomes[second]))
                yield Comparison(name, kind, measure, first, second, test)


def _cells(questions: Mapping[str, Sequence[Question]]) -> Iterator[tuple[str, Kind]]:
    """Set and kind, where there are questions of it."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    for name, asked in questions.items():
        for kind in kinds:
            if any(one.kind == kind for one in asked):
                yield name, kind
