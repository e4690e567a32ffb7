"""Shards: the same rows give the same bytes however they come in, and a hash that any program can compute."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from cards.rows.schema import FIRST_METADATA, PUBLIC
from cards.rows.shards import ConfigWriter, ContentHash, read_shards

TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = {
    pa.string(): TEXT,
    pa.bool_(): st.none() | st.booleans(),
    pa.int64(): st.none() | st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.none() | st.floats(allow_nan=False, allow_infinity=False),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    schema = draw(st.sampled_from([PUBLIC, pa.schema([PUBLIC.field(name) for name in FIRST_METADATA])]))
    rows = []
    for _ in range(draw(st.integers(0, 5))):
        row: dict[str, Any] = {field.name: draw(VALUES[field.type]) for field in schema if field.name != "messages"}
        turns = [{"role": draw(TEXT), "content": draw(TEXT)} for _ in range(2)]
        rows.append({**row, "messages": turns} if schema is PUBLIC else row)
    return pa.Table.from_pylist(rows, schema=schema)


def by_the_words(table: pa.Table) -> str:
    """The hash as `ContentHash` describes it, without pyarrow."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        for name in sorted(row):
            value = row[name]
            values = (
                [part for turn in value for part in (turn["role"], turn["content"])] if name == "messages" else [value]
            )
            for one in values:
                if isinstance(one, bool):
                    one = "true" if one else "false"
                elif isinstance(one, float):
                    one = repr(one)
                if one is None:
                    digest.update(b"-,")
                else:
                    data = str(one).encode()
                    digest.update(b"%d:%b," % (len(data), data))
    return digest.hexdigest()


@settings(max_examples=60, deadline=None)
@given(tables())
def test_the_content_hash_is_what_its_words_say(table: pa.Table) -> None:
    found = ContentHash()
    found.update(table)
    assert found.hexdigest() == by_the_words(table)


def rows(count: int) -> pa.Table:
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    ids = [f"{number:08}" for number in range(count)]
    # Long words that no compression makes small.
    texts = ["".join(hashlib.sha256(f"{name}{part}".encode()).hexdigest() for part in range(4)) for name in ids]
    return pa.table({"id": ids, "text": texts}, schema=schema)


def write(folder: Path, table: pa.Table, cuts: int, shard_bytes: int) -> dict[str, str]:
    with ConfigWriter(folder / "data" / "some", table.schema, shard_bytes) as writer:
        for start in range(0, table.num_rows, cuts):
            writer.write(table.slice(start, cuts))
        written = writer.finish()
    assert written.rows == table.num_rows
    files = sorted((folder / "data" / "some").iterdir())
    assert sum(path.stat().st_size for path in files) == written.download_size
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashes | {"content": f"{written.content} {written.num_bytes}"}


def test_shards_do_not_depend_on_how_rows_come_in(tmp_path: Path) -> None:
    table = rows(5_500)
    once = write(tmp_path / "a", table, 5_500, 100_000)
    assert once == write(tmp_path / "b", table, 7, 100_000)
    assert once == write(tmp_path / "c", table, 1_001, 100_000)
    assert len(once) > 3


def test_shards_are_named_as_datasets_expects_and_hold_all_rows_in_order(tmp_path: Path) -> None:
    table = rows(5_500)
    names = sorted(write(tmp_path, table, 900, 100_000))[1:]
    assert names == [f"train-{number:05}-of-{len(names):05}.parquet" for number in range(len(names))]
    assert pa.concat_tables(read_shards(tmp_path, "some")).equals(table)
    whole = write(tmp_path / "whole", table, 900, 10**9)
    assert sorted(whole)[1:] == ["train-00000-of-00001.parquet"]


def test_a_config_without_rows_is_one_file_without_rows(tmp_path: Path) -> None:
    assert len(write(tmp_path, rows(0), 1, 100)) == 2
    (path,) = (tmp_path / "data" / "some").iterdir()
    assert pq.read_table(path).num_rows == 0


def test_row_groups_of_long_rows_stay_below_what_the_hubs_viewer_reads(tmp_path: Path) -> None:
    """The viewer refuses row groups over 300 MB, and reads single rows where a file has a page index."""
    long = [{**row, "reasoning": "x" * 300_000} for row in rows(1_000).to_pylist()]
    write(tmp_path, pa.Table.from_pylist(long, schema=PUBLIC), 1_000, 10**9)
    (path,) = (tmp_path / "data" / "some").iterdir()
    footer = pq.read_metadata(path)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    assert max(group.num_rows * 300_000 for group in groups) < 100_000_000
    assert all(group.column(0).has_offset_index for group in groups)
