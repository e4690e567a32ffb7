"""Tables that fit: the widths of a table's columns for whoever prints it, so that no word is broken or cut.

Used by the console of `pipelines/progress.py`; tables are built with rich as usual.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# The width where nothing limits it, as in a file. Lines are not padded to it.
UNLIMITED = 10_000


def is_of_text(renderable: object) -> bool:
    """Whether this is a table all of whose cells are text: bars of progress are tables too, of other things."""
    return isinstance(renderable, Table) and all(
        isinstance(cell, str | Text) for column in renderable.columns for cell in column.cells
    )


def fitted(table: Table, console: Console, options: ConsoleOptions) -> RenderableType:
    """The table as it fits into `options.max_width` columns of text.

    Where it does not fit as it is, cells are wrapped between words; where the longest words do not fit beside each
    other, each row becomes lines `head: cell`. A title or caption wider than the table has lines of its own.
    """
    wide = options.update(width=UNLIMITED, max_width=UNLIMITED)
    spans = [_span(console, wide, [column.header] * table.show_header + [*column.cells]) for column in table.columns]
    between = console.measure(table, options=wide).maximum - sum(max(span.maximum, 1) for span in spans)
    longest, words = [max(span.maximum, 1) for span in spans], [max(span.minimum, 1) for span in spans]
    # What should stay on one line is wrapped before rows are taken apart.
    lines = [span if column.no_wrap else word for column, span, word in zip(table.columns, longest, words, strict=True)]
    least = next((one for one in (longest, lines, words) if sum(one) + between <= options.max_width), None)
    if least is None:
        return Group(*_titled(table, _stacked(table)))
    widths = _shared(least, longest, options.max_width - between)
    given = copy(table)
    given.columns = [
        replace(column, width=width, no_wrap=False) for column, width in zip(table.columns, widths, strict=True)
    ]
    beside = [console.measure(text, options=wide).maximum for text in (table.title, table.caption) if text]
    if max(beside, default=0) <= sum(widths) + between:
        return _Fitted(given)
    given.title = given.caption = None
    return Group(*_titled(table, [_Fitted(given)]))


@dataclass(frozen=True)
class _Fitted:
    """A table that has its widths: rich asks it, not the console, which would fit it again."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return self.table.__rich_console__(console, options)


def _span(console: Console, wide: ConsoleOptions, cells: Iterable[RenderableType]) -> Measurement:
    """The longest word and the longest line of a column."""
    found = [console.measure(cell, options=wide) for cell in cells if cell]
    return Measurement(max((one.minimum for one in found), default=0), max((one.maximum for one in found), default=0))


def _shared(least: Sequence[int], longest: Sequence[int], room: int) -> list[int]:
    """Widths from the least to the longest: short columns get theirs first, long ones share what is left."""
    widths = list(least)
    for _ in range(min(room, sum(longest)) - sum(widths)):
        lacking = [at for at, width in enumerate(widths) if width < longest[at]]
        widths[min(lacking, key=widths.__getitem__)] += 1
    return widths


def _stacked(table: Table) -> Iterator[Text]:
    """Each row as lines: its first cell, and below it the others, each behind its head; empty cells are left out."""
    heads = [" ".join(_text(column.header).plain.split()) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for number, (head, cell) in enumerate(zip(heads, row, strict=True)):
            if words := _text(cell):
                named = f"{head}: " if head and table.show_header else ""
                yield Text.assemble("  " * (number > 0), named, Text(" ").join(words.split("\n")))


def _titled(table: Table, body: Iterable[RenderableType]) -> Iterator[RenderableType]:
    yield from [_text(table.title, "table.title")] if table.title else []
    yield from body
    yield from [_text(table.caption, "table.caption")] if table.caption else []


def _text(cell: RenderableType, style: str = "") -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell), style)
