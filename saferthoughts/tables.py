"""Tables of a run, a release or an evaluation, for Arrow, pandas, polars and DuckDB.

Reads parquet files; writes nothing.
"""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.errors import UserError, visible

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

# Rows and columns of a table's display.
_SHOWN, _COLUMNS = 10, 8


class Table:
    """Rows of a run, in memory. It is shown by its first ten rows, with what a terminal would obey written out.

    >>> import saferthoughts as st
    >>> table = st.Run.open("demo").table("prompts")
    >>> table.to_pandas().groupby("kind").size().to_dict()
    {'benign': 2, 'harmful': 4}
    >>> table.relation().filter("kind = 'harmful'").count("*").fetchall()
    [(4,)]
    """

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self._rows.column_names)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self._rows

    def to_pandas(self) -> "pd.DataFrame":
        """The rows as a pandas frame."""
        frame: pd.DataFrame = self._rows.to_pandas()
        return frame

    def to_polars(self) -> Any:
        """The rows as a polars frame.

        Raises:
            UserError: polars is not installed.
        """
        try:
            import polars
        except ModuleNotFoundError as error:
            raise UserError("polars is not installed. Install it (pip install polars) or use to_pandas().") from error
        return polars.from_arrow(self._rows)

    def relation(self, connection: "duckdb.DuckDBPyConnection | None" = None) -> "duckdb.DuckDBPyRelation":
        """The rows as a DuckDB relation, of DuckDB's default connection if none is given."""
        import duckdb

        return (connection or duckdb).from_arrow(self._rows)

    def __repr__(self) -> str:
        return f"{visible(self._first().to_string(max_colwidth=40, max_cols=_COLUMNS))}\n[{self._size()}]"

    def _repr_html_(self) -> str:
        return f"{visible(self._first().to_html(max_cols=_COLUMNS))}<p>{self._size()}</p>"

    def _first(self) -> "pd.DataFrame":
        return Table(self._rows.slice(0, _SHOWN)).to_pandas()

    def _size(self) -> str:
        return f"{len(self):,} rows, {len(self.columns)} columns"
