"""One SELECT of the user's over a run's tables: `saferthoughts sql RUN "select ..."`.

Reads the views of `curation/views.py`, and can read nothing else; writes nothing.
"""

import duckdb
import pyarrow as pa

from curation.views import open_views
from pipelines.errors import UserError
from pipelines.interrupts import asked
from pipelines.runs import RunFolder

_KINDS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def query(run: RunFolder, text: str) -> pa.Table:
    """What a query returns.

    Raises:
        UserError: it is not one SELECT, it does not run, or a table of the run is broken.
    """
    with open_views(run) as db:
        try:
            statements = duckdb.extract_statements(text)
            if len(statements) != 1 or statements[0].type not in _KINDS:
                told = ", ".join(item.type.name for item in statements) or "nothing"
                raise UserError(f"sql takes one SELECT, and nothing that writes; this is {told}.")
            return db.sql(text).to_arrow_table()
        except duckdb.Error as error:
            if asked() or run.broken_table() is not None:
                raise  # stopped, or the table's fault and not the query's
            raise UserError(f"The query does not run: {' '.join(str(error).split())}") from error
