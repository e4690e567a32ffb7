"""A run's tables as DuckDB views that can read them and nothing else.

Reads whatever of the tables below the run has; a table that it does not have yet is an empty view. Writes nothing. Used
by the quality checks, `saferthoughts sql` and the report.

prompts, responses, judgements, verdicts, repairs, reviews, decisions, accepted, rejected, duplicates, contamination,
selected, student_nll
    as the stages wrote them
    (verdicts: with people's majority in the judges' place, where `review apply` found one; what people call unsafe is
    left to the check `human`)
judged          the verdicts as the judges gave them
settings        the run's `checks`, a column each
variants        variant, pattern_checked, least_words, most_words, refusal_begins: whether its harmful rows are rejected
                for a pattern, and the shape that it asks for
variant_lines   variant, position, line: what each line of its reasoning opens with
natural_stops   finish_reason: every name of an end that a model came to by itself
holds_tag(text) a function: whether a mark of reasoning or answer, of any family of models, is left outside code
language_difference(prompt, text)
                a function: how a text leaves its prompt's script or language (`curation/quality/languages.py`)
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.quality.languages import register
from pipelines.errors import UserError
from pipelines.interrupts import on_stop
from pipelines.prompts.variant import load_variants
from pipelines.reasoning_families import TAGS
from pipelines.records import PATTERNS, Judgement, Prompt, Repair, Response, Verdict, arrow_schema
from pipelines.runs import WRITTEN_BY, RunFolder
from pipelines.settings.changes import knows_baseline
from pipelines.settings.config import Checks, load_config
from pipelines.settings.old_names import sql_now
from pipelines.system_errors import system_line
from pipelines.teachers.finish_reasons import NATURAL


def _texts(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()) for name in names]


REJECTED = pa.schema(_texts("response_id", "check_name", "reason", "value"))
# `item` is "prompt" or "response"; a cluster is named by its survivor.
DUPLICATES = pa.schema(
    [
        *_texts("item", "item_id", "cluster"),
        pa.field("survivor", pa.bool_()),
        pa.field("similarity", pa.float64()),
        *_texts("why"),
    ]
)
CONTAMINATION = pa.schema(
    [*_texts("prompt_id", "response_id", "set_name", "item_id", "method", "span"), pa.field("score", pa.float64())]
)
SELECTED = pa.schema(_texts("response_id", "config", "stratum"))
STUDENT_NLL = pa.schema(
    [*_texts("response_id"), pa.field("student_nll", pa.float64()), pa.field("tokens", pa.int64()), *_texts("reason")]
)
_PEOPLE = [pa.field(name, pa.bool_()) for name in PATTERNS]
REVIEWS = pa.schema(
    [
        *_texts("response_id", "annotator"),
        pa.field("assisted", pa.bool_()),
        *_texts("safe"),
        *_PEOPLE,
        pa.field("no_pattern", pa.bool_()),
        *_texts("over_refusal"),
        pa.field("quality", pa.int64()),
        *_texts("comment"),
    ]
)
# What people's majority says of a row; null where nobody voted on it, or as many for as against.
DECISIONS = pa.schema(
    [
        *_texts("response_id"),
        pa.field("unsafe", pa.bool_()),
        *_PEOPLE,
        *_texts("compliance"),
        pa.field("votes", pa.int64()),
        pa.field("tie", pa.bool_()),
    ]
)
SCHEMAS: dict[str, pa.Schema] = {
    "prompts": arrow_schema(Prompt),
    "responses": arrow_schema(Response),
    "judgements": arrow_schema(Judgement),
    "verdicts": arrow_schema(Verdict),
    "repairs": arrow_schema(Repair),
    "reviews": REVIEWS,
    "decisions": DECISIONS,
    "accepted": pa.schema(_texts("response_id")),
    "rejected": REJECTED,
    "duplicates": DUPLICATES,
    "contamination": CONTAMINATION,
    "selected": SELECTED,
    "student_nll": STUDENT_NLL,
}
# Columns that tables of earlier versions do not have, with their types: null there.
LATER = {"judgements": {"spans": "VARCHAR", "confidence": "DOUBLE"}}

_OVERRULED = f"""
    SELECT judged.* REPLACE (
        {", ".join(f"coalesce(decisions.{name}, judged.{name}) AS {name}" for name in PATTERNS)},
        coalesce(
            decisions.strong_vacillation OR decisions.weak_vacillation OR decisions.harmful_additions,
            judged.overthinking
        ) AS overthinking,
        coalesce(decisions.compliance, judged.compliance) AS compliance,
        CASE WHEN decisions.unsafe = false THEN 'safe' ELSE judged.safety END AS safety
    )
    FROM judged LEFT JOIN decisions USING (response_id)
"""  # noqa: S608

# Nothing of the program around is a table, and nothing is fetched.
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "max_temp_directory_size": "50GB",
    "threads": str(min(os.cpu_count() or 1, 16)),
}


@contextmanager
def open_views(
    run: RunFolder,
    *required: str,
    settings: Checks | None = None,
    memory: str | None = None,
    scratch: Path | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads the run's tables, and no other file, extension or address.

    Args:
        required: Tables that must be there.
        settings: In place of the run's own.
        memory: Most memory that DuckDB takes ("1GB"); most of the machine's if not given.
        scratch: The folder for what does not fit; the current one if not given.

    Raises:
        UserError: a required table is missing, or a table is not parquet, has other columns than it should, or holds
            what parquet cannot hold.
    """
    try:
        opened = _opened(run, required, settings, {"memory_limit": memory, "temp_directory": scratch})
        with opened as db, on_stop(db.interrupt):
            yield db
    except duckdb.Error as error:
        # Told by its words, or where those do not name the table, by reading all of them.
        if (broken := broken_table(run, error) or run.broken_table()) is None:
            raise
        raise broken from error


def broken_table(run: RunFolder, error: duckdb.Error) -> UserError | None:
    """An error caused by a table of the run, not by the query, as one line; None for any other."""
    message = " ".join(str(error).split())
    name = next((name for name in SCHEMAS if f"{name}.parquet" in message), None)
    if name is None or isinstance(error, duckdb.PermissionException) or system_line(error):
        return None
    again = f"Delete it and make it again: saferthoughts {WRITTEN_BY[name]} {run.name}"
    return UserError(f"{run.table_path(name)} cannot be read: {message[:300]} {again}")


def _opened(
    run: RunFolder, required: tuple[str, ...], settings: Checks | None, limits: dict[str, str | Path | None]
) -> duckdb.DuckDBPyConnection:
    for name in required:
        run.require(name)
    there = [name for name in SCHEMAS if run.table_path(name).exists()]
    for name in there:
        _check_columns(run, name)
    db = duckdb.connect(config={**_CLOSED, **{name: str(value) for name, value in limits.items() if value is not None}})
    for name, schema in SCHEMAS.items():
        view = "judged" if name == "verdicts" else name
        if name in there:
            found = db.read_parquet(str(run.table_path(name)))
            later = "".join(
                f", NULL::{kind} AS {one}" for one, kind in LATER.get(name, {}).items() if one not in found.columns
            )
            found.project(f"* {sql_now(found.columns)}{later}").create_view(view)
        else:
            db.register(view, schema.empty_table())
    # Without people's decisions a plain view: a join of all verdicts would be dear at a million rows.
    db.sql(_OVERRULED if "decisions" in there else "FROM judged").create_view("verdicts")
    config = load_config(run)
    config = config.model_copy(update={"checks": settings or config.checks})
    parts = config.checks.model_dump(exclude={"only", "folder", "variants"})
    db.register("settings", pa.Table.from_pylist([parts]))
    baseline = knows_baseline(run)
    shapes = {name: entry.shape for name, entry in load_variants().items()}
    rows = [
        {
            "variant": name,
            "pattern_checked": config.checks_patterns(name, baseline),
            "least_words": shape.reasoning_words[0],
            "most_words": shape.reasoning_words[1],
            "refusal_begins": shape.refusal_begins,
        }
        for name, shape in shapes.items()
    ]
    db.register("variants", pa.Table.from_pylist(rows))
    lines = [
        {"variant": name, "position": position, "line": line}
        for name, shape in shapes.items()
        for position, line in enumerate(shape.lines, 1)
    ]
    db.register("variant_lines", pa.Table.from_pylist(lines))
    db.register("natural_stops", pa.table({"finish_reason": sorted(NATURAL)}))
    # A constant pattern is compiled once, and not for every row.
    pattern = "|".join(re.escape(tag) for tag in sorted(TAGS)).replace("'", "''")
    prose = r"regexp_replace(text, '(?s)```.*?(```|$)|`[^`\n]*`', '', 'g')"
    db.execute(
        f"CREATE MACRO holds_tag(text) AS regexp_matches(text, '{pattern}') AND regexp_matches({prose}, '{pattern}')"
    )
    register(db)
    fence(db, [run.table_path(name) for name in there])
    return db


def _check_columns(run: RunFolder, name: str) -> None:
    expected = SCHEMAS[name]
    with run.opened(name) as file:
        found: pa.Schema = file.schema_arrow
    again = f"Make the table again: saferthoughts {WRITTEN_BY[name]} {run.name}"
    for field in expected:
        place = found.get_field_index(field.name)
        if place < 0 and field.name in LATER.get(name, ()):
            continue
        if place < 0:
            raise UserError(f"{run.table_path(name)} has no column '{field.name}'. {again}")
        kind = found.field(place).type
        if kind != field.type and not (pa.types.is_large_string(kind) and pa.types.is_string(field.type)):
            raise UserError(f"{run.table_path(name)}: column '{field.name}' is {kind}, not {field.type}. {again}")


def fence(db: duckdb.DuckDBPyConnection, paths: Iterable[Path]) -> None:
    """From here on a query reaches these files and nothing else, and cannot change that."""
    listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    db.execute(f"SET allowed_paths = [{listed}]")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
