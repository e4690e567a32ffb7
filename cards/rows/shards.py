"""A configuration's rows as parquet shards: the same rows give the same bytes, and a hash that needs no parquet.

Writes data/<config>/train-00000-of-00001.parquet and so on into a release that is being built; reads them back in
batches. Memory does not grow with the rows.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sql.views import fence
from pipelines.documents import parquet_batches
from pipelines.settings.old_names import first_name

# Where configurations are that have columns of their own: `data` reads as one table.
OBJECTIVES = "objectives"
SHARD_BYTES = 500_000_000
_GROUP = 1_000
# The Hub's viewer reads whole row groups where a file has no page index, and refuses those over 300 MB.
_GROUP_BYTES = 64_000_000


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class ContentHash:
    """A hash of rows, whatever file they come from and whichever package reads it.

    sha256 over all rows in the order of id; of a row, over its values in the order of the columns' names; a value as a
    netstring (its length in bytes, ":", its UTF-8 bytes, ","), null as "-,". Booleans are "true" and "false", numbers
    decimal as Python writes them; of `messages` the texts of the two turns are taken, role and content each (and the
    reasoning, where it has a key of its own); any other list is its JSON, without spaces.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, rows: pa.Table) -> None:
        """Take in further rows."""
        if not rows.num_rows:
            return
        columns = [text for name in sorted(rows.column_names) for text in _texts(name, rows[name].combine_chunks())]
        joined = pc.binary_join_element_wise(*(_netstrings(column) for column in columns), "")
        for chunk in pa.chunked_array([joined]).chunks:
            self._digest.update(b"".join(chunk.cast(pa.large_binary()).to_pylist()))

    def hexdigest(self) -> str:
        """The hash of the rows so far."""
        return self._digest.hexdigest()


def _texts(name: str, column: pa.Array) -> list[pa.Array]:
    kind = column.type
    if pa.types.is_list(kind) and name == "messages":
        # Two turns a row, as `verify` sees to.
        parts = [field.name for field in kind.value_type]
        return [pc.struct_field(pc.list_element(column, turn), part) for turn in (0, 1) for part in parts]
    if pa.types.is_list(kind):
        return [pa.array([None if one is None else _JSON.encode(one) for one in column.to_pylist()], pa.string())]
    if pa.types.is_floating(kind):
        return [pa.array([None if value is None else repr(value) for value in column.to_pylist()], pa.string())]
    return [pc.cast(column, pa.string())]


def _netstrings(texts: pa.Array) -> pa.Array:
    lengths = pc.cast(pc.binary_length(texts), pa.string())
    return pc.fill_null(pc.binary_join_element_wise(lengths, ":", texts, ",", ""), "-,")


@dataclass(frozen=True, slots=True)
class Written:
    """One configuration as it was written: rows, their content hash, and bytes in Arrow's memory and in files."""

    rows: int
    content: str
    num_bytes: int
    download_size: int


class ConfigWriter:
    """Takes a configuration's rows in the order of ids and writes them as shards of about `shard_bytes`."""

    def __init__(self, folder: Path, schema: pa.Schema, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._schema = schema
        self._shard_bytes = shard_bytes
        self._waiting: list[pa.Table] = []
        self._parts: list[Path] = []
        self._open: ShardFile | None = None
        self._hash = ContentHash()
        self._rows = 0
        self._bytes = 0

    def __enter__(self) -> "ConfigWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._open is not None:
            self._open.close()

    def write(self, rows: pa.Table) -> None:
        """Take further rows; row groups do not depend on how rows were cut into calls."""
        self._hash.update(rows)
        self._rows += rows.num_rows
        self._waiting.append(rows)
        if sum(table.num_rows for table in self._waiting) >= _GROUP:
            waiting = pa.concat_tables(self._waiting)
            whole = waiting.num_rows - waiting.num_rows % _GROUP
            for start in range(0, whole, _GROUP):
                self._write_group(waiting.slice(start, _GROUP))
            self._waiting = [waiting.slice(whole)]

    def finish(self) -> Written:
        """Write what waits and give the shards their names."""
        rest = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        if rest.num_rows or not self._parts:
            self._write_group(rest)
        self._close_shard()
        size = sum(part.stat().st_size for part in self._parts)
        for number, part in enumerate(self._parts):
            part.rename(part.with_name(f"train-{number:05}-of-{len(self._parts):05}.parquet"))
        return Written(self._rows, self._hash.hexdigest(), self._bytes, size)

    def _write_group(self, rows: pa.Table) -> None:
        if self._open is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._parts.append(self._folder / f"part-{len(self._parts):05}")
            self._open = ShardFile(self._parts[-1], self._schema)
        size = arrow_bytes(rows)
        self._bytes += size
        if self._open.write(rows, 1 + size // _GROUP_BYTES) >= self._shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def arrow_bytes(rows: pa.Table) -> int:
    """Bytes of the rows as Arrow keeps them, whichever way they are cut into chunks.

    A text takes its UTF-8 and an offset, a flag a bit, a number eight bytes; bitmaps of nulls,
    which writers may leave out, are not counted.
    """
    return sum(_column_bytes(rows[name].combine_chunks()) for name in rows.column_names)


def _column_bytes(column: pa.Array) -> int:
    kind = column.type
    if pa.types.is_list(kind):
        flat = pc.list_flatten(column)
        if not pa.types.is_struct(kind.value_type):
            return 4 * len(column) + _column_bytes(flat)
        parts = (pc.struct_field(flat, name.name) for name in kind.value_type)
        return 4 * len(column) + sum(_column_bytes(part) for part in parts)
    if pa.types.is_string(kind):
        return 4 * len(column) + (pc.sum(pc.binary_length(column)).as_py() or 0)
    return int(len(column) * kind.bit_width // 8)


class ShardFile:
    """A parquet file whose bytes depend on its rows alone (and on pyarrow's version)."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            compression_level=9,
            version="2.6",
            data_page_version="1.0",
            store_schema=False,
            write_page_index=True,
        )

    def write(self, rows: pa.Table, groups: int = 1) -> int:
        """Write a row group, or about as many as are wanted; the bytes that the file has by then."""
        self._writer.write_table(rows, row_group_size=max(1, _GROUP // groups))
        return int(self._sink.tell())

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()
        self._sink.close()


def fenced(paths: Iterable[Path], scratch: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A connection that reads these files and no others, whatever a column of somebody's release is called; what does
    not fit into memory goes into `scratch`."""
    spills = {} if scratch is None else {"temp_directory": str(scratch)}
    db = duckdb.connect(config={"memory_limit": "1GB", "python_enable_replacements": "false", **spills})
    fence(db, paths)
    return db


def tables_in(folder: Path) -> list[Path]:
    """Every table of a release."""
    return sorted(path for part in ("data", OBJECTIVES) for path in (folder / part).rglob("*.parquet"))


def shards_of(folder: Path, config: str) -> list[Path]:
    """A configuration's files in the order of their rows; a release of before may have it under its first name."""
    for name in dict.fromkeys((f"data/{config}", f"data/{first_name(config)}", f"{OBJECTIVES}/{config}")):
        if found := sorted((folder / name).glob("train-*.parquet")):
            return found
    return []


def read_shards(folder: Path, config: str) -> Iterator[pa.Table]:
    """A configuration's rows in batches.

    Raises:
        OSError, pa.ArrowException: a file cannot be read.
        ValueError: a file unfolds to too much.
    """
    for path in shards_of(folder, config):
        yield from parquet_batches(path)
