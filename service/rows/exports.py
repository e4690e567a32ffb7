"""Rows as a file of lines of JSON or of parquet, written while it is sent: some hundred rows are held at a time."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.run_archives import Sink
from service.rows.columns import Numbers
from service.rows.layout import SCHEMA
from service.rows.reading import RowIndex

_TEXTS = ("prompt", "reasoning", "answer")
_WHOLE = pa.schema([*SCHEMA, *((name, pa.string()) for name in _TEXTS)])
_BATCH = 500
FORMATS = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def exported(index: RowIndex, numbers: Numbers, kind: str) -> Iterator[bytes]:
    """The pieces of a file of rows with their figures and texts, in the order of their numbers."""
    batches = index.batches(numbers, _BATCH)
    return _lines(batches) if kind == "jsonl" else _parquet(batches)


def _lines(batches: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    for rows in batches:
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _parquet(batches: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    sink: Any = Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, "w"), _WHOLE, compression="zstd") as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist(rows, schema=_WHOLE))
            yield sink.taken()
    yield sink.taken()
