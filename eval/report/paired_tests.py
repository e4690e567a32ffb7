"""Paired tests between models that were evaluated apart: each row against the first of its base model, by question.

Reads rows and answers of one section; writes nothing. What an evaluation compared itself is not compared again, and
models that were not asked the same questions in the same way never are.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from eval.report.figures import ReportRow
from eval.run.paired_questions import compared
from eval.run.results import Answer, Comparison, Rate


def across(
    rows: Sequence[ReportRow], answers: Mapping[str, Sequence[Answer]], known: Sequence[Comparison]
) -> Iterator[Comparison]:
    """The comparisons that `known` lacks: of a base model's raw row, or its first, with each other one.

    Args:
        rows: In the order of the table.
        answers: A row's name -> its answers.
        known: What evaluations compared themselves, by rows' names.
    """
    done = {(one.task, frozenset((one.first, one.second))) for one in known}
    by_base: dict[str, list[ReportRow]] = defaultdict(list)
    for row in rows:
        by_base[row.measured.base.casefold()].append(row)
    for first, *others in by_base.values():
        for second in others:
            for task, figure in second.figures.items():
                same_way = task in first.figures and first.figures[task].mark == figure.mark
                if not same_way or (task, frozenset((first.name, second.name))) in done:
                    continue
                ids = [{one.id for one in answers[row.name] if one.task == task} for row in (first, second)]
                if ids[0] == ids[1]:
                    own = {row.name: _of(task, "", answers[row.name]) for row in (first, second)}
                    each = _each(first.figures[task].counts)
                    yield compared(task, "", (first.name, second.name), own, sorted(ids[0]), each)


def made_anew(one: Comparison, rates: Sequence[Rate], answers: Mapping[str, Sequence[Answer]]) -> Comparison:
    """A stored comparison; recomputed where an older version counted missing verdicts as failures.

    Args:
        rates: Of both models on its task and group.
        answers: By model.
    """
    if one.test.left_out is not None or all(rate.complete for rate in rates):
        return one
    own = {model: _of(one.task, one.group, answers[model]) for model in (one.first, one.second)}
    ids = sorted({answer.id for found in own.values() for answer in found})
    return compared(one.task, one.group, (one.first, one.second), own, ids, _each(rates[0]))


def _of(task: str, group: str, answers: Sequence[Answer]) -> list[Answer]:
    return [one for one in answers if one.task == task and group in ("", one.category)]


def _each(rate: Rate) -> int:
    """How many answers each question was to have."""
    return max(1, rate.expected // max(1, rate.questions))
