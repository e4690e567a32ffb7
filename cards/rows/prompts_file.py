"""prompts.jsonl: every prompt of a release's run, released or not, so that it can be made again by another teacher.

Writes and reads it in batches. Not parquet: what takes all parquet files of a release gets its rows. Releases of
format 1 have prompts.parquet, which is read as well.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from cards.rows.shards import ContentHash
from pipelines.documents import parquet_batches
from pipelines.records import Prompt, arrow_schema, content_id
from pipelines.runs import RunFolder

_FILES = ("prompts.jsonl", "prompts.parquet")
# No line can be longer: pyarrow reads a file in blocks of whole lines.
_BLOCK = 16_000_000


def prompts_file(folder: Path) -> Path:
    """The file with the prompts of a release, whether it is there or not."""
    return next((folder / name for name in _FILES if (folder / name).is_file()), folder / _FILES[0])


def write_prompts(folder: Path, run: RunFolder) -> tuple[str, str]:
    """Write the run's prompts in the order that they were drawn in.

    Returns:
        A hash of their ids, and one of all that they hold.
    """
    ids: list[str] = []
    content = ContentHash()
    schema = arrow_schema(Prompt)
    with run.opened("prompts") as file, (folder / _FILES[0]).open("w", encoding="utf-8") as out:
        for batch in file.iter_batches(batch_size=1_000):
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            ids += table["prompt_id"].to_pylist()
            content.update(table)
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    return content_id(*ids), content.hexdigest()


def prompt_batches(path: Path) -> Iterator[pa.Table]:
    """The prompts in batches, with the columns of `Prompt`.

    Raises:
        OSError, ValueError, KeyError: it cannot be read, or lacks a column.
    """
    schema = arrow_schema(Prompt)
    if path.suffix == ".parquet":
        yield from (batch.select(schema.names).cast(schema) for batch in parquet_batches(path))
        return
    from pyarrow import json as pajson

    if not path.stat().st_size:
        return
    with pajson.open_json(
        path,
        pajson.ReadOptions(block_size=_BLOCK),
        pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    ) as batches:
        for batch in batches:
            yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)


def read_prompts(path: Path) -> pa.Table:
    """All prompts of a release.

    Raises:
        OSError, ValueError, KeyError: as `prompt_batches`.
    """
    return pa.concat_tables([*prompt_batches(path)] or [arrow_schema(Prompt).empty_table()])


def prompts_fit(prompts: pa.Table, lineage: dict[str, Any]) -> bool:
    """Whether these are a release's prompts: by id and, where the lineage has a hash of it, by content."""
    content = ContentHash()
    content.update(prompts)
    known = lineage["content"].get("prompts")
    ids = prompts["prompt_id"].to_pylist()
    return content_id(*ids) == lineage["prompt_ids"] and known in (None, content.hexdigest())
