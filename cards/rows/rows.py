"""The rows of a release: what of a run's tables becomes public, and as which columns.

Reads prompts, responses, judgements, verdicts, reviews, accepted and selected of a run by the query of rows.sql, a
part of the ids at a time: memory does not grow with the rows. `cards/rows/shards.py` writes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cards.rows.row_order import cut, parts_of, taken
from cards.rows.schema import COLUMNS, schema_of, turns_type
from cards.rows.shards import fenced
from curation.selection import selected_rows
from curation.sql.views import open_views
from pipelines.progress import meter
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.thinking import join_columns

_ROWS = Path(__file__).with_name("rows.sql")
BATCH = 4_000
"""Rows that are passed on at a time."""
_PASSED_ON = 20_000
_IN_PARTS = ("released", "responses", "verdicts", "judgements", "reviews")
# DuckDB's own share: sorting beyond it goes to disk.
_MEMORY = "1GB"


class Turn(NamedTuple):
    """One turn of many conversations; `reasoning` where it is apart from the content."""

    role: str
    content: pa.Array
    reasoning: pa.Array | None = None


def configs_of(config: RunConfig) -> list[str]:
    """The configurations a release of this run has: a variant each, and `benign`."""
    return [*config.variants, "benign"]


@contextmanager
def released_views(run: RunFolder, scratch: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The run's tables with a view `released` (response_id): the accepted rows, of these the selected ones.

    Args:
        run: A run that is checked.
        scratch: Where what does not fit into memory is put for as long as it takes.

    Raises:
        UserError: a table is missing or not readable, or the selection is of other accepted rows than there are now.
    """
    chosen = selected_rows(run)
    needed = ("prompts", "responses", "judgements", "verdicts", "accepted")
    with open_views(run, *needed, memory=_MEMORY, scratch=scratch) as db:
        where = " WHERE response_id IN (SELECT response_id FROM selected)" if chosen else ""
        db.execute(f"CREATE TEMP VIEW released AS SELECT response_id FROM accepted{where}")  # noqa: S608
        yield db


def released_rows(db: duckdb.DuckDBPyConnection, scratch: Path) -> Iterator[pa.Table]:
    """All rows in batches, in the order of ids: the columns of PUBLIC but messages and run_id.

    The call puts them in order, and shows that where they are many; what it returns reads them.

    Args:
        db: The run's tables, of `released_views`.
        scratch: The folder for the rows on their way into order; about as large as the run's responses.

    Raises:
        RuntimeError: a released response has no row, or several.
    """
    ((expected,),) = db.sql("SELECT count(*) FROM released").fetchall()
    ids = db.sql("SELECT response_id FROM released ORDER BY response_id").to_arrow_reader(BATCH)
    bounds = parts_of(ids, expected)
    scratch.mkdir(exist_ok=True)
    parts = {name: _parts(db, name, bounds, scratch) for name in _IN_PARTS}
    return _in_order(db.sql("FROM prompts").to_arrow_table(), parts, scratch, expected)


def _parts(db: duckdb.DuckDBPyConnection, name: str, bounds: list[str], scratch: Path) -> list[Path]:
    """The released rows' part of a table, in a file for each part of the ids."""
    query = f"FROM {name} WHERE response_id IN (SELECT response_id FROM released)"  # noqa: S608
    reader = db.sql(query).to_arrow_reader(_PASSED_ON)
    # The texts take the time; and a release of one part is written before anyone asks how far it is.
    if name != "responses" or not bounds:
        return cut(reader, bounds, scratch, name, lambda rows: None)
    with meter("release, responses put in order") as shown:
        return cut(reader, bounds, scratch, name, shown.advance)


def _in_order(
    prompts: pa.Table, parts: Mapping[str, Sequence[Path]], scratch: Path, expected: int
) -> Iterator[pa.Table]:
    query = _ROWS.read_text(encoding="utf-8")
    found = 0
    with fenced([], scratch) as db:
        db.register("prompts", prompts)
        for paths in zip(*parts.values(), strict=True):
            for name, path in zip(parts, paths, strict=True):
                db.register(name, taken(path))
            for batch in db.sql(query).to_arrow_reader(BATCH):
                found += batch.num_rows
                yield pa.Table.from_batches([batch])
    if found != expected:
        raise RuntimeError(f"{expected} rows are to be released, but {found} of them have response, prompt and verdict")


def public_rows(rows: pa.Table, run_id: str, reasoning_key: str = "inline") -> pa.Table:
    """Rows as they are published. `messages` holds the bare prompt, never the instruction it was distilled with."""
    turns = [user_turn(rows["query"]), assistant_turn(rows["reasoning"], rows["answer"], reasoning_key)]
    rows = rows.append_column("messages", conversations(turns, reasoning_key))
    return finished(rows, schema_of(COLUMNS, reasoning_key), run_id)


def finished(rows: pa.Table, schema: pa.Schema, run_id: str) -> pa.Table:
    """The columns of a schema, with the run's id."""
    rows = rows.append_column("run_id", pa.repeat(pa.scalar(run_id), rows.num_rows))
    return rows.select(schema.names).cast(schema)


def user_turn(query: pa.ChunkedArray) -> Turn:
    """What a user says, in each row."""
    return Turn("user", pc.cast(query, pa.string()).combine_chunks())


def assistant_turn(reasoning: pa.ChunkedArray, answer: pa.ChunkedArray, reasoning_key: str) -> Turn:
    """What an assistant says, in each row: reasoning and answer as one text, or apart."""
    if reasoning_key == "inline":
        return Turn("assistant", join_columns(reasoning, answer))
    return Turn("assistant", *(pc.cast(part, pa.string()).combine_chunks() for part in (answer, reasoning)))


def conversations(turns: Sequence[Turn], reasoning_key: str = "inline") -> pa.Array:
    """Of each row a list of its turns."""
    count, each = len(turns[0].content), len(turns)
    # Turn and turn about: the first turns are rows 0 to count, the second ones those after them.
    order = pa.array(np.arange(each * count).reshape(each, count).T.reshape(-1))
    fields = list(turns_type(reasoning_key).value_type)
    parts = [pa.array([turn.role for turn in turns] * count, pa.string())]
    parts.append(pa.concat_arrays([turn.content for turn in turns]).take(order))
    if len(fields) > len(parts):
        nothing = pa.nulls(count, pa.string())
        parts.append(pa.concat_arrays([turn.reasoning or nothing for turn in turns]).take(order))
    structs = pa.StructArray.from_arrays(parts, fields=fields)
    return pa.ListArray.from_arrays(pa.array(np.arange(0, each * count + 1, each), pa.int32()), structs)


def count_configs(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many released rows each configuration has, those with none left out."""
    return dict(
        db.sql(
            """
            SELECT CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config, count(*)
            FROM released JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
            GROUP BY config
            """
        ).fetchall()
    )
