"""Files of prompts, read into rows that know where they stand, so that every complaint names a line.

Reads .jsonl, .csv, .parquet, .txt (a prompt a line) and .yaml (a list of mappings); writes nothing. What the columns
mean is `pipelines/prompts/prompt_sets.py`'s affair.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import yaml

from pipelines.documents import MOST_YAML, check_parquet, check_values, json_of
from pipelines.errors import UserError, unknown

# Where a file has several of these, the first in this order holds the prompts.
TEXT_COLUMNS = ("prompt", "text", "query", "question", "behaviour")
OPTIONAL_COLUMNS = ("kind", "category", "id", "source", "license")


class Row(NamedTuple):
    """One row as it was read: where it stands ("set.csv row 3") and its columns."""

    where: str
    values: Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, at least one.

    Raises:
        UserError: an unknown suffix, an empty file, or one that is not what its suffix says, with the line.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path}: {unknown('type of prompt file', path.suffix, READERS)}")
    try:
        rows = list(READERS[path.suffix](path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as {path.suffix[1:]}: {_one_line(error)}") from error
    if not rows:
        raise UserError(f"{path} is empty: it holds no prompt.")
    return rows


def text(row: Row, column: str) -> str:
    """A column that must hold text, without the white space around it.

    Raises:
        UserError: it is absent, blank, of another type, or cannot be stored.
    """
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        what = "empty" if value is None or isinstance(value, str) else f"not text but {type(value).__name__}"
        raise UserError(f"{row.where}: '{column}' is {what}. Put it right or take the row out.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{row.where}: '{column}' holds half of a surrogate pair, which no file can store. Mend it.")
    return value.strip()


def optional_text(row: Row, column: str) -> str:
    """A column that may be absent or empty (then ""), as text; ids are often whole numbers."""
    value = row.values.get(column)
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
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        data = [] if node is None else loader.construct_document(node)
        check_values(data, "YAML", str(path))
    except RecursionError as error:
        raise UserError(f"{path} cannot be read: it is nested too deeply.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line} is not YAML: {_one_line(getattr(error, 'problem', None) or error)}") from error
    except (OSError, ValueError) as error:
        # ValueError: bytes that are not UTF-8, or a value such as 2026-13-45 that YAML takes for a date.
        raise UserError(f"{path} cannot be read: {_one_line(error)}") from error
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


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                values = json_of(line, where)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not JSON: {_one_line(error)}") from error
            if not isinstance(values, dict):
                raise UserError(f"{where} holds a {type(values).__name__}, not an object. Give one object a line.")
            yield Row(where, values)


def _csv_rows(path: Path) -> Iterator[Row]:
    if not path.stat().st_size:
        return iter(())
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    with pa_csv.open_csv(path, parse_options=parsing) as reader:
        names = reader.schema.names
    # Every column as text: a guessed type would turn an id 007 into 7, and fail where a guess breaks further down.
    reading = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return _table_rows(path, pa_csv.read_csv(path, parse_options=parsing, convert_options=reading))


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        check_parquet(path)
    except ValueError as error:
        if isinstance(error, pa.ArrowException):
            raise  # it is no parquet; told with every other format
        raise UserError(f"{path} cannot be read: {_one_line(error)}") from error
    names = pq.read_schema(path).names
    known = [name for name in names if name in TEXT_COLUMNS or name in OPTIONAL_COLUMNS]
    # Other columns may be large. Where none is known they are read all the same, so that the message can name them.
    return _table_rows(path, pq.read_table(path, columns=known or names))


def _table_rows(path: Path, table: pa.Table) -> Iterator[Row]:
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' stands twice. Rename one.")
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(f"{path} row {number}", values)


def _text_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row(f"{path} line {number}", {"text": line})


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
    ".yaml": yaml_rows,
}


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
