"""One SELECT over a run's tables: `saferthoughts sql RUN "select ..."`, a .sql file, or a name of `analyses`.

Reads the views of `curation/sql/views.py`, and can read nothing else; writes nothing. `curation/sql/fence.py` decides
what may run, `curation/sql/apart.py` how long and in how much memory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curation.sql.apart import SECONDS, run_apart
from curation.sql.fence import reading
from curation.sql.views import open_views
from pipelines.errors import UserError
from pipelines.runs import RunFolder

ANALYSES = {path.stem: path for path in sorted(Path(__file__).with_name("analyses").glob("*.sql"))}


def query(run: RunFolder, text: str, seconds: float = SECONDS) -> pa.Table:
    """What a query returns: a SELECT, that of a .sql file, or of an analysis by its name.

    Raises:
        UserError: it is not one statement that reads, it does not run, it takes too long or too much memory, or a table
            of the run is broken.
    """
    path = ANALYSES.get(text) or (Path(text) if text.endswith(".sql") else None)
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}. Give a file with one SELECT.") from error
    _read(text)
    return run_apart({"kind": "query", "run": str(run.path.resolve()), "query": text}, seconds)


def query_apart(request: Mapping[str, Any], write: Callable[[pa.RecordBatchReader], None]) -> None:
    """Write what a query returns, in the process that `curation.sql.apart` starts."""
    text = _read(request["query"])
    run = RunFolder(Path(request["run"]))
    with open_views(run, memory=f"{request['memory']}B", scratch=Path(request["scratch"])) as db:
        try:
            write(db.sql(text).to_arrow_reader(10_000))
        except (duckdb.Error, pa.ArrowException) as error:
            if run.broken_table() is not None:
                raise  # the table's fault, and not the query's
            raise UserError(f"The query does not run: {' '.join(str(error).split())}") from error


def _read(text: str) -> str:
    try:
        return reading(text)
    except duckdb.Error as error:
        raise UserError(f"The query does not run: {' '.join(str(error).split())}") from error
