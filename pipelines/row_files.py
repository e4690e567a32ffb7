"""Files of rows, whoever made them: every format gives the same rows, and every complaint names where it stands.

Reads .jsonl and .ndjson, .json (a list of objects or of texts, an object that holds one, or columns), .csv and .tsv
(the delimiter is found out), .parquet, .arrow and .feather, .yaml (a list of mappings) and .txt (a line a row); text
also packed, as .gz or .zst. Writes nothing. What the columns mean is the caller's affair.
"""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import yaml
from yaml.constructor import SafeConstructor

from pipelines.documents import (
    MOST_JSON,
    MOST_UNFOLDING,
    MOST_YAML,
    UNFOLDING_FROM,
    check_values,
    dense,
    json_of,
    parquet_batches,
)
from pipelines.errors import UserError, one_line, unknown
from pipelines.settings.overrides import yaml_node

_DELIMITERS = (",", "\t", ";", "|")
# So much of a file shows its delimiter.
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_ROWS = 20
# What a text begins with that is not UTF-8: what Excel calls Unicode text, and what PowerShell writes.
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Row(NamedTuple):
    """One row as it was read: where it stands ("set.csv row 3") and its columns."""

    where: str
    values: Mapping[str, Any]


def read_rows(path: Path, known: Collection[str] = ()) -> list[Row]:
    """All rows of a file, at least one.

    Args:
        known: Columns that are enough, where the file has any of them: of a table, no others are unpacked.

    Raises:
        UserError: an unknown suffix, an empty file, or one that is not what its suffix says, with the line.
    """
    suffix = kind_of(path)
    if suffix not in READERS:
        raise UserError(f"{path}: {unknown('type of file', suffix, READERS)}")
    try:
        rows = list(_of_table(path, known) if suffix in _TABLES else READERS[suffix](path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except (OSError, EOFError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as {suffix[1:]}: {one_line(str(error))}") from error
    if not rows:
        raise UserError(f"{path} is empty: it holds no row.")
    if any("" in row.values for row in rows):
        # "" stands for no column elsewhere.
        rows = [Row(row.where, {name or "(unnamed)": value for name, value in row.values.items()}) for row in rows]
    return rows


def kind_of(path: Path) -> str:
    """The suffix that says what a file is, without that of its packing."""
    inner = Path(path.stem) if path.suffix.lower() in _PACKED else path
    return inner.suffix.lower()


def text(row: Row, column: str) -> str:
    """A column that must hold text, without the white space around it.

    Raises:
        UserError: it is absent, blank, of another type, or cannot be stored.
    """
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        what = "empty" if value is None or isinstance(value, str) else f"not text but {type(value).__name__}"
        raise UserError(f"{row.where}: '{column}' is {what}. Put it right or take the row out.")
    if fault := unsound(value):
        raise UserError(f"{row.where}: '{column}' holds {fault}, which not every file can store. Mend it.")
    return value.strip()


def unsound(value: str) -> str:
    """What a text holds that tables and tokenizers trip over, "" where nothing is wrong."""
    if "\0" in value:
        return "a NUL character"
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return "half of a surrogate pair"
    return ""


def optional_text(row: Row, column: str) -> str:
    """A column that may be absent or empty (then ""), as text; ids are often whole numbers, categories lists."""
    value = row.values.get(column)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if value is None or value == "":
        return ""
    return text(Row(row.where, {column: str(value) if type(value) is int else value}), column)


def yaml_rows(path: Path, required: Sequence[str] = (), optional: Sequence[str] = ()) -> Iterator[Row]:
    """The mappings of a YAML list, each with its line.

    With `required`, every item has those keys, and none beyond them and `optional`.

    Raises:
        UserError: not YAML, not a list of mappings, empty, a key twice in an item, a key missing or unknown.
    """
    try:
        if path.stat().st_size > MOST_YAML:
            raise UserError(
                f"{path} is larger than {MOST_YAML // 10**6} MB. Give so many prompts as .jsonl or .parquet."
            )
        node = yaml_node(path.read_text(encoding="utf-8"))
        data = [] if node is None else SafeConstructor().construct_document(node)
        check_values(data, "YAML", str(path))
    except RecursionError as error:
        raise UserError(f"{path} cannot be read: it is nested too deeply.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{line} is not YAML: {one_line(str(getattr(error, 'problem', None) or error))}"
        ) from error
    except (OSError, ValueError) as error:
        # ValueError: bytes that are not UTF-8, or a value such as 2026-13-45 that YAML takes for a date.
        raise UserError(f"{path} cannot be read: {one_line(str(error))}") from error
    if node is None or not data:
        raise UserError(f"{path} is empty: it holds no item.")
    if not isinstance(data, list):
        raise UserError(f"{path} holds a {type(data).__name__}, not a list. Begin each item with '- '.")
    for item, place in zip(data, node.value, strict=True):
        where = f"{path} line {place.start_mark.line + 1}"
        if not isinstance(item, dict):
            raise UserError(
                f"{where}: the item is a {type(item).__name__}, not a mapping such as {{id: ..., text: ...}}."
            )
        # YAML takes the last of two equal keys: an item that lost its '- ' would vanish into the one above.
        if len(place.value) != len(item):
            raise UserError(f"{where}: a key stands twice in this item. Is a '- ' missing before the second?")
        missing = [key for key in required if key not in item]
        if missing:
            raise UserError(f"{where}: the item has no {' and no '.join(missing)}. It needs: {', '.join(required)}.")
        for key in item if required else ():
            if key not in (*required, *optional):
                raise UserError(f"{where}: {unknown('key', str(key), (*required, *optional))}")
        yield Row(where, item)


def _jsonl_rows(path: Path, perhaps_a_list: bool = True) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path} line {number}"
                if perhaps_a_list and number == 1 and line.lstrip().startswith("["):
                    # One list of objects, by another name.
                    yield from _json_rows(path)
                    return
                yield _object(_json(line, where), where, "Give one object a line.")


def _json_rows(path: Path) -> Iterator[Row]:
    """A list of objects; an object in which one stands, as {"data": [...]}; columns of equal length; or lines."""
    with _opened(path) as file:
        text = file.read(MOST_JSON + 1)
    if not text.strip():
        return
    try:
        value = json_of(text, str(path))
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise UserError(f"{path} line {error.lineno} is not JSON: {error.msg}") from error
        # Lines, each with an object, by another name.
        yield from _jsonl_rows(path, perhaps_a_list=False)
        return
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {one_line(str(error))}") from error
    items = _listed(path, value)
    if items and all(isinstance(item, str) for item in items):
        # A list of prompts.
        items = [{"text": item} for item in items]
    for number, item in enumerate(items, start=1):
        yield _object(item, f"{path} row {number}", "Give a list of objects.")


def _listed(path: Path, value: Any) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = {name: item for name, item in value.items() if isinstance(item, list)}
        of_objects = [item for item in lists.values() if item and isinstance(item[0], dict)]
        if len(of_objects) == 1:
            return of_objects[0]
        if lists and len(lists) == len(value) and len({len(item) for item in lists.values()}) == 1:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        names = ", ".join(map(str, list(value)[:8]))
        raise UserError(f"{path} holds an object ({names}) and no single list of rows in it. Give a list of objects.")
    raise UserError(f"{path} holds a {type(value).__name__}, not a list of objects.")


def _json(line: str, where: str) -> Any:
    try:
        return json_of(line, where)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {one_line(str(error))}") from error


def _object(value: Any, where: str, remedy: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} holds a {type(value).__name__}, not an object. {remedy}")
    return Row(where, value)


def _csv_rows(path: Path) -> Iterator[Row]:
    # Every column as text: a guessed type would turn an id 007 into 7.
    csv.field_size_limit(MOST_JSON)
    with _opened(path, newline="") as file:
        sample = file.read(_SAMPLE_BYTES)
        if not sample.strip():
            return
        file.seek(0)
        delimiter = "\t" if kind_of(path) == ".tsv" else _delimiter_of(sample)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            names = [name.strip().strip("\ufeff\u200b") for name in next(reader)]
            # Numbers that a program put in front, or the empty columns to the right of a spreadsheet's table.
            names = [name or f"(unnamed {place})" for place, name in enumerate(names, start=1)]
            _once(path, names)
            for number, values in enumerate(reader, start=1):
                where = f"{path} row {number}"
                if not values:
                    continue
                if len(values) != len(names):
                    raise UserError(
                        f"{where} (line {reader.line_num}) has {len(values)} fields, and the header {len(names)}."
                    )
                yield Row(where, dict(zip(names, values, strict=True)))
        except csv.Error as error:
            raise UserError(f"{path} line {reader.line_num} is not CSV: {error}") from error


def _delimiter_of(sample: str) -> str:
    """The delimiter under which the first rows have one number of fields, and most of them; else a comma."""

    def width(delimiter: str) -> int:
        whole = sample if len(sample) < _SAMPLE_BYTES else sample[: sample.rfind("\n") + 1]
        try:
            rows = list(islice(csv.reader(io.StringIO(whole), delimiter=delimiter), _SAMPLE_ROWS))
        except csv.Error:
            return 1
        widths = {len(row) for row in rows if row}
        return widths.pop() if len(widths) == 1 else 1

    return max(_DELIMITERS, key=lambda delimiter: (width(delimiter), -_DELIMITERS.index(delimiter)))


def _of_table(path: Path, known: Collection[str]) -> Iterator[Row]:
    number = 0
    try:
        for table in _TABLES[kind_of(path)](path):
            _once(path, table.column_names)
            wanted = [name for name in table.column_names if name in known] or table.column_names
            for values in table.select(wanted).to_pylist():
                number += 1
                yield Row(f"{path} row {number}", values)
    except ValueError as error:
        if isinstance(error, pa.ArrowException):
            raise  # it is no such table; told with every other format
        raise UserError(f"{path} cannot be read: {one_line(str(error))}") from error


def _arrow_tables(path: Path) -> Iterator[pa.Table]:
    with pa.memory_map(str(path)) as source:
        try:
            batches = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(at) for at in range(reader.num_record_batches))
        for batch in batches:
            yield dense(pa.Table.from_batches([batch]))


def _once(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' stands twice. Rename one.")


def _text_rows(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row(f"{path} line {number}", {"text": line})


class _Bounded(io.RawIOBase):
    """A packed file as it unfolds, up to a bound."""

    def __init__(self, source: IO[bytes], most: int, name: str) -> None:
        self._source, self._left, self._name = source, most, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._source.read(len(buffer))
        self._left -= len(found)
        if self._left < 0:
            raise OSError(f"{self._name} unfolds to too much")
        buffer[: len(found)] = found
        return len(found)


@contextmanager
def _opened(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A file's text, unpacked where it is packed."""
    if path.suffix.lower() not in _PACKED:
        with path.open("rb") as raw:
            encoding = _encoding(raw.read(4))
        with path.open(encoding=encoding, newline=newline) as file:
            yield file
        return
    most = max(UNFOLDING_FROM, MOST_UNFOLDING * path.stat().st_size)
    with _PACKED[path.suffix.lower()](path) as source:
        whole = io.BufferedReader(_Bounded(source, most, path.name))
        # A table of text is looked at twice, and a packed file cannot go back.
        unpacked = whole.read()
        yield io.TextIOWrapper(io.BytesIO(unpacked), encoding=_encoding(unpacked), newline=newline)


def _encoding(start: bytes) -> str:
    """The encoding that a text's first bytes name; UTF-8 where they name none."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")


_PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".zst": lambda path: pa.input_stream(str(path), compression="zstd"),
}
_TABLES: dict[str, Callable[[Path], Iterator[pa.Table]]] = {
    ".parquet": parquet_batches,
    ".arrow": _arrow_tables,
    ".feather": _arrow_tables,
}
READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    **{suffix: lambda path: _of_table(path, ()) for suffix in _TABLES},
    ".txt": _text_rows,
    ".yaml": yaml_rows,
    ".yml": yaml_rows,
}
