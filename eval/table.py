"""Scores as people read them: a rich table for the terminal, the same as markdown for a model card.

Reads a `Scores`, writes nothing. Questions and answers never reach these tables, so nothing here needs escaping but
the labels.
"""

from collections.abc import Callable
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from eval.scores import Group, Measure, Scores
from pipelines.statistics import Interval

TITLE = "Refusals and form"
_SET_NAMES = {"heldout": "held-out"}


class Cells(NamedTuple):
    """The table before it has a look: a head and rows of as many words, and the notes below."""

    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def scores_table(scores: Scores) -> Table:
    """Rows: set x kind. Columns: refused of every model with its 95 % interval, the paired p, well-formed of every."""
    cells = _cells(scores)
    notes = "\n".join(map(escape, cells.notes))
    table = Table(title=TITLE, caption=notes, caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(cells.head):
        # Words of a head below each other: the table then fits into 80 columns.
        head = name.replace(" ", "\n").replace("well-formed", "well-\nformed")
        table.add_column(escape(head), justify="right" if number else "left", no_wrap=True)
    for row in cells.rows:
        table.add_row(*map(escape, row))
    return table


def scores_markdown(scores: Scores) -> str:
    """The same as a GitHub-flavoured markdown table with its notes, ending in a newline."""
    cells = _cells(scores)
    lines = [cells.head, [":---"] + ["---:"] * (len(cells.head) - 1), *cells.rows]
    table = "\n".join(f"| {' | '.join(word.replace('|', chr(92) + '|') for word in line)} |" for line in lines)
    return "\n\n".join([table, *cells.notes]) + "\n"


def _cells(scores: Scores) -> Cells:
    labels = [model.label for model in scores.models]
    groups = {(group.set, group.kind, group.model): group for group in scores.groups}
    tests = {
        (test.set, test.kind, test.second): f"{test.test.p:.2g}"
        for test in scores.comparisons
        if test.measure == "refused"
    }
    head = ["questions"]
    for number, label in enumerate(labels):
        head += [f"refused {label}"] + (["p"] if number else [])
    head += [f"well-formed {label}" for label in labels]
    rows = []
    for name, kind in dict.fromkeys((group.set, group.kind) for group in scores.groups):
        row = [f"{_SET_NAMES.get(name, name)} {kind}"]
        for number, label in enumerate(labels):
            row.append(_rate(groups[name, kind, label], "refused"))
            row += [tests[name, kind, label]] if number else []
        row += [_count(groups[name, kind, label], "well_formed") for label in labels]
        rows.append(row)
    return Cells(head, rows, _notes(scores, labels))


def _notes(scores: Scores, labels: list[str]) -> list[str]:
    def counted(what: str, count: Callable[[Group], int]) -> str:
        parts = []
        for label in labels:
            mine = [group for group in scores.groups if group.model == label]
            parts.append(f"{label} {sum(map(count, mine))}/{sum(group.n for group in mine)}")
        return f"{what}: {', '.join(parts)}."

    p = " p: exact McNemar, paired by question." if len(labels) > 1 else ""
    return [
        f"[95 % Wilson interval, in %].{p} {scores.decoding.method.capitalize()}, string rules, no judge.",
        counted(f"Cut off at {scores.decoding.max_tokens} tokens", lambda group: group.truncated)
        + " "
        + counted("No answer, unscored", lambda group: group.unscored),
    ]


def _count(group: Group, measure: Measure) -> str:
    return f"{getattr(group, measure)}/{group.n}"


def _rate(group: Group, measure: Measure) -> str:
    interval: Interval = getattr(group, f"{measure}_rate")
    return f"{_count(group, measure)} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
