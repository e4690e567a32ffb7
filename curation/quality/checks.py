"""Responses and verdicts to accepted and rejected rows, by the queries under `curation/quality/`.

Reads prompts, responses and verdicts of a run, and what else of it there is (`curation/sql/views.py`); writes
accepted.parquet (response_id) and rejected.parquet (response_id, check_name, reason, value: a row for every check that
objects). Run it with `saferthoughts check RUN`.

A query returns response_id, reason, value. Adding a file adds a check; a folder of one's own (`checks.folder`) adds to
them or replaces those of the same name. A query that reads the view `objected`, the ids that other checks object to,
runs after those that do not.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curation.sql.apart import run_apart
from curation.sql.fence import reading
from curation.sql.views import REJECTED, open_views
from pipelines.errors import UserError, unknown
from pipelines.freshness import made_from, require_fresh
from pipelines.interrupts import asked
from pipelines.progress import meter
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config
from pipelines.settings.parts import read_yaml

FOLDER = Path(__file__).parent
# For all checks together, where some are of one's own folder.
_LONGEST_S = 7200.0
_INPUTS = ("prompts", "responses", "verdicts")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the checks did: responses = accepted + rejected. Of the rejected ones `superseded` are attempts at a row of
    which repair keeps another; `by_reason` counts (check, reason) pairs of all others."""

    responses: int
    accepted: int
    rejected: int
    by_reason: dict[tuple[str, str], int]
    superseded: int

    @property
    def rows(self) -> int:
        """The rows that were checked: a row and repair's attempts at it count once."""
        return self.responses - self.superseded


def load_checks(folder: Path = FOLDER) -> dict[str, Path]:
    """The query files under `folder`, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.sql"))}


def checks_of(own: str | None) -> dict[str, Path]:
    """The shipped checks, and those of a folder of the user's own on top.

    Raises:
        UserError: the folder is not there, or has no queries.
    """
    if own is None:
        return load_checks()
    found = load_checks(Path(own))
    if not found:
        raise UserError(
            f"There are no .sql files in {own} (checks.folder). A query a file: response_id, reason, value."
        )
    return {**load_checks(), **found}


def filter_settings(name: str | None) -> dict[str, Any]:
    """The keys of run.yaml that a filter of `filters.yaml` sets; none where there is no name.

    Raises:
        UserError: there is no such filter.
    """
    known = read_yaml(FOLDER / "filters.yaml")
    if name is not None and name not in known:
        raise unknown("filter", name, known)
    return {} if name is None else {f"checks.{key}": value for key, value in known[name].items()}


def objections_of(run: RunFolder, only: Sequence[str]) -> pa.Table:
    """What some checks object to, as rejected.parquet would have it; writes nothing.

    Raises:
        UserError: a table is missing or broken, a check is unknown, or a query does not run.
    """
    own = load_config(run).checks.folder
    queries = _wanted(checks_of(own), only)
    if own is not None:
        return _rejected_apart(run, queries)
    with open_views(run, *_INPUTS) as db:
        return _rejected(run, db, queries)


def _wanted(queries: dict[str, Path], only: Sequence[str]) -> dict[str, Path]:
    for name in only:
        if name not in queries:
            raise unknown("check", name, queries)
    return {name: path for name, path in queries.items() if not only or name in only}


def check(run: RunFolder) -> CheckResult:
    """Run the checks that the run's configuration names, and write who is accepted.

    Raises:
        UserError: a table is missing or broken, a check is unknown, or a query does not run.
    """
    settings = load_config(run).checks
    queries = _wanted(checks_of(settings.folder), settings.only)
    require_fresh(run, "verdicts", "decisions")
    rejected = None if settings.folder is None else _rejected_apart(run, queries)
    with open_views(run, *_INPUTS) as db:
        rejected = _rejected(run, db, queries) if rejected is None else rejected
        db.register("objections", rejected)
        strangers = db.sql(
            "SELECT response_id FROM objections ANTI JOIN responses USING (response_id) LIMIT 1"
        ).fetchall()
        if strangers:
            raise UserError(f"A check objects to '{strangers[0][0]}', which is no response of {run.path}.")
        accepted = db.sql(
            "SELECT response_id FROM responses ANTI JOIN objections USING (response_id) ORDER BY response_id"
        ).to_arrow_table()
        responses = db.sql("SELECT count(*) FROM responses").fetchall()[0][0]
        lost = db.sql("SELECT count(DISTINCT response_id) FROM objections").fetchall()[0][0]
        superseded = db.sql("FROM objections WHERE check_name = 'superseded'").count("*").fetchall()[0][0]
        reasons = db.sql(
            "SELECT check_name, reason, count(*) FROM objections WHERE response_id NOT IN "
            "(SELECT response_id FROM objections WHERE check_name = 'superseded') GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    if accepted.num_rows + lost != responses:
        raise RuntimeError(f"{responses} responses, but {accepted.num_rows} accepted and {lost} rejected")
    run.write_all({"accepted": accepted, "rejected": rejected})
    result = CheckResult(responses, accepted.num_rows, lost, {(row[0], row[1]): row[2] for row in reasons}, superseded)
    run.record(
        "check",
        inputs=made_from(run, *_INPUTS, "repairs", "decisions"),
        outputs={f"{name}.parquet": file_hash(run.table_path(name)) for name in ("accepted", "rejected")},
        queries={name: file_hash(path) for name, path in queries.items()},
        settings=settings.model_dump(mode="json", exclude={"folder"}),
        counts={"responses": responses, "accepted": accepted.num_rows, "rejected": lost, "superseded": superseded},
        reasons=[{"check": row[0], "reason": row[1], "rows": row[2]} for row in reasons],
    )
    return result


def _rejected_apart(run: RunFolder, queries: dict[str, Path]) -> pa.Table:
    """Run queries of which some are the user's own, in a process with limits; what they object to."""
    texts = {name: _text(path) for name, path in queries.items()}
    with duckdb.connect() as parser:
        for name, text in texts.items():
            _read(queries[name], text, parser)
    paths = {name: str(path.resolve()) for name, path in queries.items()}
    return run_apart({"kind": "checks", "run": str(run.path.resolve()), "queries": paths}, _LONGEST_S)


def objections_apart(request: Mapping[str, Any], write: Callable[[pa.RecordBatchReader], None]) -> None:
    """Write what the queries object to, in the process that `curation.sql.apart` starts."""
    memory, scratch = f"{request['memory']}B", Path(request["scratch"])
    run = RunFolder(Path(request["run"]))
    with open_views(run, *_INPUTS, memory=memory, scratch=scratch) as db:
        write(_rejected(run, db, {name: Path(path) for name, path in request["queries"].items()}).to_reader())


def _rejected(run: RunFolder, db: duckdb.DuckDBPyConnection, queries: dict[str, Path]) -> pa.Table:
    """What the queries object to, those that read `objected` last."""
    texts = {name: _text(path) for name, path in queries.items()}
    later = [name for name, text in texts.items() if re.search(r"\bobjected\b", text)]
    found: list[pa.Table] = [REJECTED.empty_table()]
    with meter("check", len(queries), "checks") as shown, duckdb.connect() as parser:
        for names in ([name for name in queries if name not in later], later):
            db.register("objected", pa.concat_tables(found).select(["response_id"]))
            for name in names:
                query = _read(queries[name], texts[name], parser)
                found.append(_objections(run, db, name, queries[name], query))
                shown.advance()
    return pa.concat_tables(found).sort_by(
        [("response_id", "ascending"), ("check_name", "ascending"), ("reason", "ascending"), ("value", "ascending")]
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from error


def _objections(run: RunFolder, db: duckdb.DuckDBPyConnection, name: str, path: Path, query: str) -> pa.Table:
    try:
        found = db.sql(query).to_arrow_table()
    except duckdb.Error as error:
        if asked() or run.broken_table() is not None:
            raise  # stopped, or the table's fault and not the query's
        message = str(error)
        line = re.search(r"LINE (\d+)", message) or _line_of_error(db, query)
        where = f"{path}, line {line.group(1)}" if line else str(path)
        raise UserError(f"{where}: the query does not run: {message.splitlines()[0]}") from error
    missing = {"response_id", "reason", "value"} - set(found.column_names)
    if missing:
        raise UserError(f"{path}: the query must return response_id, reason and value; missing: {sorted(missing)}.")
    columns = [
        found["response_id"].cast(pa.string()),
        pa.array([name] * found.num_rows, pa.string()),
        found["reason"].cast(pa.string()),
        found["value"].cast(pa.string()),
    ]
    return pa.table(columns, schema=REJECTED)


def _read(path: Path, query: str, parser: duckdb.DuckDBPyConnection) -> str:
    """The query, where it is one that only reads."""
    try:
        return reading(query, parser)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except duckdb.Error as error:
        line = re.search(r"LINE (\d+)", str(error))
        where = f"{path}, line {line.group(1)}" if line else str(path)
        raise UserError(f"{where}: the query does not run: {str(error).splitlines()[0]}") from error


def _line_of_error(db: duckdb.DuckDBPyConnection, query: str) -> re.Match[str] | None:
    """`sql` names the line of a syntax error only; `execute` names it for names that do not resolve as well."""
    try:
        db.execute(query)
    except duckdb.Error as error:
        return re.search(r"LINE (\d+)", str(error))
    return None
