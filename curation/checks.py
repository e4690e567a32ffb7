"""Responses and verdicts to accepted and rejected rows, by the queries under `curation/quality/`.

Reads prompts, responses and verdicts of a run; writes accepted.parquet (response_id) and rejected.parquet
(response_id, check_name, reason, value: a row for every check that objects). Run it with `saferthoughts check RUN`.

A query reads the views `prompts`, `responses`, `verdicts`, `repairs`, `variants` and `settings` (the run's `checks`, a
column each) and returns response_id, reason, value. Adding a file adds a check.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from pipelines.config import load_config
from pipelines.errors import UserError, unknown
from pipelines.records import Repair, to_table
from pipelines.runs import RunFolder, file_hash
from pipelines.variant import load_variants

FOLDER = Path(__file__).parent / "quality"
_TABLES = ("prompts", "responses", "verdicts")
_REJECTED = pa.schema([(name, pa.string()) for name in ("response_id", "check_name", "reason", "value")])


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks did: responses = accepted + rejected; `by_reason` counts (check, reason) pairs."""

    responses: int
    accepted: int
    rejected: int
    by_reason: dict[tuple[str, str], int]


def load_checks(folder: Path = FOLDER) -> dict[str, Path]:
    """The query files under `folder`, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.sql"))}


def open_views(run: RunFolder) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the run's tables as views, and `variants` with each variant's shape."""
    db = duckdb.connect()
    for name in _TABLES:
        path = run.require(name)
        try:
            db.read_parquet(str(path)).create_view(name)
        except duckdb.Error as error:
            raise UserError(f"{path} is not readable parquet: {str(error).splitlines()[0]}") from error
    repairs = run.table_path("repairs")
    if repairs.exists():
        db.read_parquet(str(repairs)).create_view("repairs")
    else:
        db.register("repairs", to_table(Repair, []))
    settings = load_config(run).checks.model_dump(exclude={"only"})
    db.register("settings", pa.Table.from_pylist([settings]))
    shapes = [
        {"variant": name, "least_words": shape.reasoning_words[0], "most_words": shape.reasoning_words[1]}
        for name, shape in ((name, entry.shape) for name, entry in load_variants().items())
    ]
    db.register("variants", pa.Table.from_pylist(shapes))
    return db


def check(run: RunFolder) -> Checked:
    """Run the checks that the run's configuration names, and write who is accepted.

    Raises:
        UserError: a table is missing, a check is unknown, or a query is broken.
    """
    wanted = load_config(run).checks.only
    queries = load_checks()
    for name in wanted:
        if name not in queries:
            raise unknown("check", name, queries)
    with open_views(run) as db:
        found = [_objections(db, name, path) for name, path in queries.items() if not wanted or name in wanted]
        rejected = pa.concat_tables(found) if found else _REJECTED.empty_table()
        rejected = rejected.sort_by([("response_id", "ascending"), ("check_name", "ascending")])
        db.register("rejected", rejected)
        accepted = db.sql(
            "SELECT response_id FROM responses ANTI JOIN rejected USING (response_id) ORDER BY response_id"
        ).to_arrow_table()
        responses = db.sql("SELECT count(*) FROM responses").fetchall()[0][0]
        lost = db.sql("SELECT count(DISTINCT response_id) FROM rejected").fetchall()[0][0]
        reasons = db.sql("SELECT check_name, reason, count(*) FROM rejected GROUP BY ALL ORDER BY ALL").fetchall()
    if accepted.num_rows + lost != responses:
        raise RuntimeError(f"{responses} responses, but {accepted.num_rows} accepted and {lost} rejected")
    run.write("accepted", accepted)
    run.write("rejected", rejected)
    result = Checked(responses, accepted.num_rows, lost, {(row[0], row[1]): row[2] for row in reasons})
    run.record(
        "check",
        inputs={f"{name}.parquet": file_hash(run.table_path(name)) for name in _TABLES},
        outputs={f"{name}.parquet": file_hash(run.table_path(name)) for name in ("accepted", "rejected")},
        queries={name: file_hash(path) for name, path in queries.items()},
        counts={"responses": responses, "accepted": accepted.num_rows, "rejected": lost},
        reasons=[{"check": row[0], "reason": row[1], "rows": row[2]} for row in reasons],
    )
    return result


def _objections(db: duckdb.DuckDBPyConnection, name: str, path: Path) -> pa.Table:
    query = path.read_text(encoding="utf-8")
    try:
        found = db.sql(query).to_arrow_table()
    except duckdb.Error as error:
        told = str(error)
        line = re.search(r"LINE (\d+)", told) or _line_of_error(db, query)
        where = f"{path}, line {line.group(1)}" if line else str(path)
        raise UserError(f"{where}: the query does not run: {told.splitlines()[0]}") from error
    missing = {"response_id", "reason", "value"} - set(found.column_names)
    if missing:
        raise UserError(f"{path}: the query must return response_id, reason and value; missing: {sorted(missing)}.")
    columns = [
        found["response_id"].cast(pa.string()),
        pa.array([name] * found.num_rows, pa.string()),
        found["reason"].cast(pa.string()),
        found["value"].cast(pa.string()),
    ]
    return pa.table(columns, schema=_REJECTED)


def _line_of_error(db: duckdb.DuckDBPyConnection, query: str) -> re.Match[str] | None:
    """`sql` names the line of a syntax error only; `execute` names it for names that do not resolve as well."""
    try:
        db.execute(query)
    except duckdb.Error as error:
        return re.search(r"LINE (\d+)", str(error))
    return None
