"""A run's figures by column: filters, sorted orders and counts, over the Arrow file that `layout.py` writes.

The file is mapped, not read, and what a question touched of it is handed back to the system, which has it as cache: for
a million rows it is 250 MB. A row is named by its number, from 1, in the order of the file, in which mild rows come
first. What is worst is rows.sql's `worst`, and `WORST` in words.
"""

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError, unknown
from pipelines.settings.old_names import current_name
from service.rows.layout import BATCH_ROWS, COLUMNS

Key = TypeVar("Key")
Value = TypeVar("Value")
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint32]
WORST = (
    "unsafe rows, then those with the most patterns, then benign prompts that were refused, then those on which judges "
    "disagree"
)
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": pc.equal,
    "ne": pc.not_equal,
    "lt": pc.less,
    "le": pc.less_equal,
    "gt": pc.greater,
    "ge": pc.greater_equal,
    "contains": lambda column, value: pc.match_substring(column.cast(pa.string()), value, ignore_case=True),
    "null": lambda column, value: pc.equal(pc.is_null(column), value),
}
SORTABLE = tuple(name for name, kind in COLUMNS.items() if kind is not str)
_TRUTH = {"true": True, "false": False}
# Rows of sorted orders (four bytes each), of coded columns (two) and of flags (one) that are kept.
_MOST_KEPT = 8_000_000


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one column."""

    column: str
    operator: str
    value: str | int | float | bool

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.column}:{self.operator}:{value}"


def filter_of(text: str) -> Filter:
    """`column:op:value` taken apart; the value may hold further colons.

    Raises:
        UserError: an unknown column or operator, or a value of another kind than the column's.
    """
    column, _, rest = text.partition(":")
    operator, colon, value = rest.partition(":")
    if not colon:
        raise UserError(f"where takes column:op:value, such as variant:eq:improved; it got '{text[:200]}'.")
    if column not in COLUMNS:
        raise unknown("column", column[:200], COLUMNS)
    if operator not in OPERATORS:
        raise unknown("operator", operator[:200], OPERATORS)
    kind = bool if operator == "null" else str if operator == "contains" else COLUMNS[column]
    if column in ("variant", "config"):
        value = current_name(value)
    return Filter(column, operator, _value(column, kind, value))


def _value(column: str, kind: type, text: str) -> str | int | float | bool:
    try:
        if kind is bool:
            return _TRUTH[text.lower()]
        if kind is str:
            text.encode("utf-8")  # half of a surrogate pair cannot be compared
            return text
        number = kind(text)
        if not abs(number) < 2**63:
            raise ValueError(text)
    except (ValueError, KeyError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        raise UserError(f"where: {column} is compared with {words[kind]}, not with '{text[:200]}'.") from error
    return int(number) if kind is int else float(number)


def check_sort(sort: str) -> str:
    """A column of figures, with "-" before it for the largest first; "" for the order of the file.

    Raises:
        UserError: no such column, or one of texts.
    """
    if sort and sort.removeprefix("-") not in SORTABLE:
        raise unknown("figure to sort by", sort.removeprefix("-")[:200], SORTABLE)
    return sort


class Kept(Generic[Key, Value]):
    """The last values that were made by their keys, up to a weight of all together; any thread may ask."""

    def __init__(self, most: int, weight: Callable[[Value], int]) -> None:
        self._most, self._weight = most, weight
        self._there: OrderedDict[Key, Value] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept."""
        with self._guard:
            if key in self._there:
                self._there.move_to_end(key)
                return self._there[key]
        made = make()
        with self._guard:
            self._there[key] = made
            while len(self._there) > 1 and sum(map(self._weight, self._there.values())) > self._most:
                self._there.popitem(last=False)
        return made


class Columns:
    """The figures of a run's rows."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._mapped)))
        self.mark = (reader.schema.metadata or {}).get(b"mark", b"").decode()
        self._batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        self._table = pa.Table.from_batches(self._batches, reader.schema)
        self.judged: bool = self._table["worst"].null_count < len(self)
        self._orders: Kept[str, Numbers] = Kept(_MOST_KEPT, len)
        self._codes: Kept[str, tuple[Any, Any]] = Kept(_MOST_KEPT, lambda coded: len(coded[0]))
        self._flags: Kept[Filter, Mask] = Kept(2 * _MOST_KEPT, len)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def fitting(self, filters: Sequence[Filter]) -> Mask:
        """Which rows fit all filters; where a value is missing, only `null` fits."""
        mask = np.ones(len(self), dtype=bool)
        for one in filters:
            fits = OPERATORS[one.operator](self._table[one.column], one.value)
            mask &= pc.fill_null(fits, False).to_numpy()
        return mask

    def ordered(self, mask: Mask, sort: str) -> Numbers:
        """The numbers of the rows of a mask; equal ones, and those without a figure at the end, in the file's order."""
        if not sort:
            return (np.flatnonzero(mask) + 1).astype(np.uint32)
        order = self._orders.get(sort, lambda: self._order(sort))
        return np.asarray(order[mask[order]] + 1, dtype=np.uint32)

    def _order(self, sort: str) -> Numbers:
        column = self._table[sort.removeprefix("-")].cast(pa.float64(), safe=False)
        values = column.to_numpy()
        return np.argsort(-values if sort.startswith("-") else values, kind="stable").astype(np.uint32)

    def count(self, one: Filter, mask: Mask) -> int:
        """How many rows of a mask fit a filter that is asked about again and again."""
        return int(np.count_nonzero(mask & self._flags.get(one, lambda: self.fitting([one]))))

    def counts(self, name: str, mask: Mask, most: int) -> list[tuple[str, int]]:
        """The most frequent values of a column of texts among the rows of a mask."""
        codes, values = self._codes.get(name, lambda: self._coded(name))
        counted = np.bincount(codes[mask], minlength=len(values) + 1)[1:]
        top = np.argsort(-counted, kind="stable")[:most]
        return [(str(values[int(at)]), int(counted[at])) for at in top if counted[at]]

    def _coded(self, name: str) -> tuple[npt.NDArray[np.integer[Any]], Any]:
        """Each row's value as a number from 1 of the values that there are, 0 where it has none."""
        coded = self._table[name].combine_chunks().dictionary_encode()
        codes = pc.fill_null(pc.add(coded.indices, 1), 0).to_numpy()
        return codes.astype(np.int16 if len(coded.dictionary) < 2**15 else np.int32), coded.dictionary

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The figures of rows by their numbers."""
        places = [divmod(int(number) - 1, BATCH_ROWS) for number in numbers]
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for batch in {batch for batch, _ in places}:
            own = [place for place in places if place[0] == batch]
            taken = self._batches[batch].take(pa.array([at for _, at in own]))
            found |= zip(own, taken.to_pylist(), strict=True)
        self._mapped.madvise(mmap.MADV_DONTNEED)
        return [found[place] for place in places]
