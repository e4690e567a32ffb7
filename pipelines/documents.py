"""JSON, YAML and parquet that others may have written, read within bounds; here alone is said how much is too much.

Size, depth and what aliases unfold to are bounded; a parquet file is refused by its footer before anything is unpacked,
and read in batches that stay small even where one long text stands for a million rows. Reads the files it is given;
writes nothing.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from yaml.constructor import SafeConstructor

from pipelines.errors import UserError
from pipelines.settings.overrides import safe_yaml, yaml_problem

_MB = 1_000_000
MOST_JSON = 256 * _MB
MOST_YAML = 64 * _MB
_DEEPEST = 60
_MOST_VALUES = {"JSON": 20_000_000, "YAML": 5_000_000}
_MOST_ROWS = 200_000_000
_MOST_COLUMNS = 500
_DEEPEST_COLUMN = 8
# Text packs to a fifth, repeated text to a hundredth; what unfolds further is made to.
MOST_UNFOLDING = 1_000
UNFOLDING_FROM = 2_000 * _MB
_BATCH_BYTES = 256 * _MB


def json_of(text: str | bytes, where: str) -> Any:
    """JSON's value.

    Raises:
        ValueError: it is none, or too large or deep; with `where` and why.
    """
    if len(text) > MOST_JSON:
        raise ValueError(f"{where} is larger than {MOST_JSON // _MB} MB")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply") from error
    check_values(value, "JSON", where)
    return value


def read_json(path: Path) -> Any:
    """A JSON file's value.

    Raises:
        OSError, ValueError: it cannot be read, is no JSON, or is too large or deep.
    """
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"{path.name} is larger than {MOST_JSON // _MB} MB")
    return json_of(path.read_text(encoding="utf-8"), path.name)


def yaml_of(text: str, where: str, constructor: type[SafeConstructor] = SafeConstructor) -> Any:
    """YAML's value, by the project's one reader (`pipelines.settings.overrides.safe_yaml`), with the error of a file.

    Raises:
        UserError: it is none, or too large or deep, or its aliases unfold to too much.
    """
    if len(text) > MOST_YAML:
        raise UserError(f"{where} is larger than {MOST_YAML // _MB} MB, which no file of this kind is.")
    try:
        return safe_yaml(text, constructor)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: {yaml_problem(error)}") from error


def check_values(value: Any, kind: str, where: str) -> None:
    """Refuse a value that is too deep, or that holds too much once every alias is counted as often as it stands.

    Raises:
        ValueError: with `where` and why.
    """
    left = _MOST_VALUES[kind]
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        inner: Sequence[Any] = ()
        if isinstance(item, dict):
            inner = [*item, *item.values()]
        elif isinstance(item, list | tuple | set):
            inner = list(item)
        left -= 1 + len(inner)
        if depth > _DEEPEST:
            raise ValueError(f"{where} is nested too deeply")
        if left < 0:
            raise ValueError(f"{where} holds too many values")
        waiting += [(one, depth + 1) for one in inner if isinstance(one, dict | list | tuple | set)]


def check_parquet(path: Path) -> None:
    """Refuse a parquet file whose footer says that it unfolds to too much.

    Raises:
        OSError, pa.ArrowException: it is no parquet.
        ValueError: too many rows, columns, levels or bytes; with which.
    """
    size = path.stat().st_size
    found = pq.read_metadata(path)
    if found.serialized_size > size:
        raise ValueError(f"{path.name} says that its footer is larger than the file")
    if not 0 <= found.num_rows <= _MOST_ROWS:
        raise ValueError(f"{path.name} says that it has {found.num_rows:,} rows")
    if found.num_columns > _MOST_COLUMNS:
        raise ValueError(f"{path.name} has {found.num_columns:,} columns")
    levels = max((_levels(found.schema.column(at)) for at in range(found.num_columns)), default=0)
    if levels > _DEEPEST_COLUMN:
        raise ValueError(f"{path.name} has columns nested {levels} levels deep")
    packed, unfolded, rows = 0, 0, 0
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        rows += group.num_rows
        for at in range(group.num_columns):
            chunk = group.column(at)
            packed += chunk.total_compressed_size
            unfolded += chunk.total_uncompressed_size
            if chunk.total_uncompressed_size < 0 or chunk.total_compressed_size < 0 or chunk.num_values < 0:
                raise ValueError(f"{path.name} says that a column has fewer than no bytes")
    if packed > size:
        raise ValueError(f"{path.name} says that it holds {packed:,} bytes and has {size:,}")
    if rows != found.num_rows:
        raise ValueError(f"{path.name} says that it has {found.num_rows:,} rows and {rows:,}")
    _check_unfolding(path, unfolded, size)


def _levels(column: Any) -> int:
    return int(max(column.max_definition_level, column.max_repetition_level))


def _check_unfolding(path: Path, unfolded: int, size: int) -> None:
    if unfolded > max(UNFOLDING_FROM, MOST_UNFOLDING * size):
        raise ValueError(f"{path.name} unfolds from {size:,} bytes to more than {unfolded:,}")


def parquet_batches(path: Path, most_rows: int = 4_000) -> Iterator[pa.Table]:
    """A parquet file's rows in batches.

    A text that stands once in a file may stand for all of its rows, so the footer does not say how much a batch is:
    each has so few rows that they are bounded even if each were as long as a whole column of its group.

    Raises:
        OSError, pa.ArrowException: it cannot be read.
        ValueError: it unfolds to too much.
    """
    check_parquet(path)
    size, unfolded = path.stat().st_size, 0
    with pq.ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            widest = sum(group.column(at).total_uncompressed_size for at in range(group.num_columns))
            rows = max(1, min(most_rows, _BATCH_BYTES // max(widest, 1)))
            for batch in file.iter_batches(batch_size=rows, row_groups=[number]):
                table = dense(pa.Table.from_batches([batch]))
                unfolded += table.nbytes
                _check_unfolding(path, unfolded, size)
                yield table


def dense(table: pa.Table) -> pa.Table:
    """The table with every value where it stands: a file may ask to be read as numbers into a list of texts."""
    # Column by column, and no others: Arrow cannot cast a turn that has an empty field (26.0).
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(_plain_type(field.type)))
    return table


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return _plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind
