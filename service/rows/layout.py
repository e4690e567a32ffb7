"""A run's rows laid out for paging: figures in an Arrow file that is mapped, texts and their words in SQLite.

Reads the run's tables through `curation/sql/views.py` and rows.sql; writes runs/.serve/rows/RUN.arrow and RUN.sqlite,
and with `--words` RUN.words.sqlite, each whole or not at all. The service runs `python -m service.rows.layout RUNS
RUN`, in a process of its own: it takes memory that would not be given back, and time in which nobody else would be
served. Looking 50 scattered rows of 100,000 up in parquet takes a quarter of a second, whatever reads it, since texts
are compressed by the thousand; in SQLite it takes milliseconds.
"""

import json
import sqlite3
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa

from pipelines import file_marks
from pipelines.errors import refusal_of
from pipelines.prompts.mildness import severity_sql
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, atomic
from service.store import home_of

_QUERY = Path(__file__).with_name("rows.sql")
# What is kept of each judgement.
JUDGED = ("response_id", "judge", "kind", "compliance", "safety", "refused", "evidence", "analysis", "reason")
# What a filter may name, and how its value is read.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(
        ("response_id", "prompt_id", "config", "kind", "category", "template_id", "behaviour_id", "variant"), str
    ),
    **dict.fromkeys(("teacher", "model"), str),
    **dict.fromkeys(("sample", "attempt"), int),
    **dict.fromkeys(("parent_id", "finish_reason", "reasoning_source"), str),
    **dict.fromkeys(("input_tokens", "output_tokens"), int),
    **dict.fromkeys(("cost", "latency_s"), float),
    **dict.fromkeys(("lack_of_safety_awareness", "overthinking", *PATTERNS[1:]), bool),
    "refused": bool,
    **dict.fromkeys(("compliance", "safety"), str),
    "disagreement": float,
    "patterns": int,
    "worst": float,
    **dict.fromkeys(("outcome", "reasons"), str),
}
SCHEMA = pa.schema(
    [
        (name, {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[kind])
        for name, kind in COLUMNS.items()
    ]
)
# What the views read.
_TABLES = ("prompts", "responses", "judgements", "verdicts", "decisions", "accepted", "rejected")
# Mild rows are what a page shows first.
_ORDER = f"{severity_sql('category', 'kind')}, response_id"
_BATCH = 500
# Rows of a batch of the Arrow file.
BATCH_ROWS = 65_536
# Most memory that DuckDB takes.
_MEMORY = "512MB"
# Raised when the tables below change, so that no file of an older layout is read.
_LAYOUT = 4


def path_of(runs: Path, name: str, ending: str = "sqlite") -> Path:
    """Where the rows of a run are laid out: `sqlite` has the texts, `arrow` the figures, `words.sqlite` the words."""
    return home_of(runs) / "rows" / f"{name}.{ending}"


def mark_of(run: RunFolder) -> str:
    """What changes when one of the tables does, or how they are laid out."""
    marks = file_marks.mark_of(*map(run.table_path, _TABLES))
    return json.dumps([_LAYOUT, _QUERY.read_text(encoding="utf-8"), marks])


def lay_out(run: RunFolder, path: Path) -> None:
    """Write the texts to `path` and the figures beside it.

    Raises:
        UserError: the run has no responses yet, or a table of it is broken.
    """
    mark = mark_of(run)
    figures = path_of(run.path.parent, run.name, "arrow")
    with atomic(figures) as temporary, _new_file(path) as db:
        # Texts apart, so that a look for a row reads past none; answers before reasoning, which may be long.
        db.execute("CREATE TABLE rows(response_id TEXT, prompt_id TEXT)")
        db.execute("CREATE TABLE texts(answer TEXT, reasoning TEXT)")
        db.execute("CREATE TABLE prompts(prompt_id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        db.execute(f"CREATE TABLE said({', '.join(JUDGED)})")
        db.execute("BEGIN")
        _put_figures(run, temporary, mark, db)
        db.execute("CREATE UNIQUE INDEX by_id ON rows(response_id)")
        # Each text under the number of its row.
        place = "(SELECT rowid FROM rows WHERE response_id = ?)"
        texts = f"texts(rowid, answer, reasoning) VALUES ({place}, ?, ?)"
        _put_all(db, texts, run, "responses", ("response_id", "answer", "reasoning"))
        _put_all(db, "prompts VALUES (?, ?)", run, "prompts", ("prompt_id", "text"))
        if run.table_path("judgements").exists():
            _put_all(db, f"said VALUES ({_marks(JUDGED)})", run, "judgements", JUDGED)
        db.execute("COMMIT")
        db.execute("CREATE INDEX said_of ON said(response_id)")
        db.execute("CREATE INDEX by_prompt ON rows(prompt_id)")
        _note(db, mark)


def _put_figures(run: RunFolder, path: Path, mark: str, db: sqlite3.Connection) -> None:
    """Every row's figures to an Arrow file in the order of the rows, and its ids to SQLite under its number."""
    from curation.sql.views import open_views

    scratch = home_of(run.path.parent) / "scratch"
    schema = SCHEMA.with_metadata({"mark": mark})
    with (
        open_views(run, "prompts", "responses", memory=_MEMORY, scratch=scratch) as views,
        pa.ipc.new_file(path, schema) as file,
    ):
        rows = views.sql(_QUERY.read_text(encoding="utf-8")).order(_ORDER)
        for batch in _full(rows.to_arrow_reader(BATCH_ROWS)):
            file.write_table(batch.select(schema.names).cast(schema), BATCH_ROWS)
            ids = (batch.column(name).to_pylist() for name in ("response_id", "prompt_id"))
            db.executemany("INSERT INTO rows VALUES (?, ?)", zip(*ids, strict=True))


def _full(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in batches of BATCH_ROWS, so that a row's number says where it is."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        table = pa.Table.from_batches(held)
        while table.num_rows >= BATCH_ROWS:
            yield table.slice(0, BATCH_ROWS).combine_chunks()
            table = table.slice(BATCH_ROWS)
        held = table.to_batches()
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def index_words(run: RunFolder) -> None:
    """Write the words of every prompt, reasoning and answer by row, for full text search; of files already laid out."""
    texts = path_of(run.path.parent, run.name)
    with _new_file(path_of(run.path.parent, run.name, "words.sqlite")) as db:
        db.execute("ATTACH ? AS laid", [str(texts)])
        # Of words alone: the texts stay where they are.
        db.execute("CREATE VIRTUAL TABLE words USING fts5(prompt, reasoning, answer, content='')")
        db.execute("BEGIN")
        db.execute(
            "INSERT INTO words(rowid, prompt, reasoning, answer) SELECT rows.rowid, text, reasoning, answer "
            "FROM laid.rows JOIN laid.texts ON texts.rowid = rows.rowid JOIN laid.prompts USING (prompt_id) "
            "ORDER BY rows.rowid"
        )
        db.execute("COMMIT")
        _note(db, str(db.execute("SELECT mark FROM laid.made").fetchone()[0]))
        db.execute("DETACH laid")


@contextmanager
def _new_file(path: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite file that nobody else reads before it is whole, and that can always be made again."""
    with atomic(path) as temporary, closing(sqlite3.connect(temporary, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        yield db


def _note(db: sqlite3.Connection, mark: str) -> None:
    db.execute("CREATE TABLE made(mark TEXT)")
    db.execute("INSERT INTO made VALUES (?)", [mark])


def _marks(names: Collection[str]) -> str:
    return ", ".join("?" * len(names))


def _put_all(db: sqlite3.Connection, into: str, run: RunFolder, table: str, names: Collection[str]) -> None:
    with run.opened(table) as file:
        for batch in file.iter_batches(_BATCH, columns=list(names)):
            _put(db, into, batch, names)


def _put(db: sqlite3.Connection, into: str, batch: pa.RecordBatch, names: Iterable[str]) -> None:
    values = [batch.column(name).to_pylist() for name in names]
    db.executemany(f"INSERT INTO {into}", zip(*values, strict=True))


def main() -> None:
    """Lay out the rows of one run, or index their words: exit code 2 and one line where a table cannot be read."""
    runs, name = Path(sys.argv[1]), sys.argv[2]
    try:
        run = RunFolder.open(runs, name)
        if sys.argv[3:] == ["--words"]:
            index_words(run)
        else:
            lay_out(run, path_of(runs, name))
    except Exception as error:
        message = refusal_of(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
