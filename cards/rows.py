"""The rows of a release: what of a run's tables becomes public, and as which columns.

Reads prompts, responses, judgements, verdicts, reviews, accepted and selected of a run by the query of rows.sql, in
batches and in the order of ids: memory does not grow with the rows. `cards/shards.py` writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cards.schema import MESSAGES, PUBLIC
from curation.selection import selected_rows
from curation.sql.views import open_views
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.thinking import join_columns

_ROWS = Path(__file__).with_name("rows.sql")
_BATCH = 4_000
# DuckDB's own share: sorting beyond it goes to disk.
_MEMORY = "1GB"


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


def released_rows(db: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """All rows in batches, in the order of ids: the columns of PUBLIC but messages and run_id.

    Raises:
        RuntimeError: a released response has no row, or several.
    """
    ((expected,),) = db.sql("SELECT count(*) FROM released").fetchall()
    found = 0
    for batch in db.sql(_ROWS.read_text(encoding="utf-8")).to_arrow_reader(_BATCH):
        found += batch.num_rows
        yield pa.Table.from_batches([batch])
    if found != expected:
        raise RuntimeError(f"{expected} rows are to be released, but {found} of them have response, prompt and verdict")


def public_rows(rows: pa.Table, run_id: str) -> pa.Table:
    """Rows as they are published. `messages` holds the bare prompt, never the instruction it was distilled with."""
    rows = rows.append_column("messages", _messages(rows))
    rows = rows.append_column("run_id", pa.repeat(pa.scalar(run_id), rows.num_rows))
    return rows.select(PUBLIC.names).cast(PUBLIC)


def _messages(rows: pa.Table) -> pa.Array:
    """A list of a user's and an assistant's message for each row."""
    count = rows.num_rows
    query = pc.cast(rows["query"], pa.string()).combine_chunks()
    reply = join_columns(rows["reasoning"], rows["answer"])
    # Turn and turn about: the queries are rows 0 to count, the replies those after them.
    order = np.arange(2 * count).reshape(2, count).T.reshape(-1)
    content = pa.concat_arrays([query, reply]).take(pa.array(order))
    roles = pa.array(["user", "assistant"] * count, pa.string())
    turns = pa.StructArray.from_arrays([roles, content], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * count + 1, 2), pa.int32()), turns)


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
