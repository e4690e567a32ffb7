"""Which SQL of a user's may run: one statement that reads, and nothing in it that reaches beyond the run's tables.

DuckDB parses the text, and its own syntax tree decides; no word of the text is looked for. `sql` and the checks of
one's own folder pass through here. Reads and writes nothing.
"""

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import duckdb

from pipelines.errors import UserError

MOST_CHARS = 200_000
# Every node that a reading statement may have. INSERT, UPDATE and DELETE can occur inside WITH: not listed, so refused.
_NODES = ("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE")
# Of some hundred table functions, those that make rows or list tables. Others read files, take pointers into memory,
# write logs or run a text as SQL.
_TABLE_FUNCTIONS = (
    *("range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", "summary", "histogram"),
    *("histogram_values", "duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions", "duckdb_types"),
    *("duckdb_keywords", "pragma_table_info", "pragma_show"),
)
_FUNCTIONS = (
    *("getenv", "current_setting", "getvariable", "write_log", "nextval", "currval", "setval", "sleep_ms"),
    *("json_execute_serialized_sql", "json_serialize_plan", "finalize", "combine", "to_aggregate_state"),
    *("parse_duckdb_log_message", "current_query", "current_connection_id", "invoke"),
)
_PLAIN_NAME = re.compile(r"\w+")


def reading(text: str, parser: duckdb.DuckDBPyConnection | None = None) -> str:
    """The one statement of a text, where it only reads, as it is to be run.

    Args:
        parser: A connection that holds nothing, to parse many texts with; one of its own if not given.

    Raises:
        UserError: it is none or several, it writes, or it names a file or a function that is not for queries.
        duckdb.Error: it is not SQL.
    """
    if len(text) > MOST_CHARS or "\x00" in text:
        raise UserError(f"A query has at most {MOST_CHARS:,} characters, and none of them is NUL.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError("The query is not UTF-8 text.") from error
    if _kind(_only(text)) == "EXPLAIN":
        # What is explained is parsed by itself, and what was parsed is what is put together again.
        inner = _after_first_word(text)
        _check_tree(inner, parser)
        _only(f"EXPLAIN {inner}")
        return f"EXPLAIN {inner}"
    _check_tree(text, parser)
    return text


def _only(text: str) -> duckdb.Statement:
    statements = duckdb.extract_statements(text)
    kinds = [_kind(item) for item in statements]
    if len(statements) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
        given = ", ".join(kinds[:5]) or "nothing"
        raise UserError(f"A query is one SELECT, and nothing that writes; this is {given}.")
    return statements[0]


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:
        return "a statement of another kind"  # one that DuckDB's Python client has no name for


def _after_first_word(text: str) -> str:
    words = [place for place, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    inner = text.encode("utf-8")[words[1] :].decode("utf-8", errors="replace") if len(words) > 1 else ""
    try:
        kinds = [_kind(item) for item in duckdb.extract_statements(inner)]
    except duckdb.Error as error:
        raise UserError("EXPLAIN takes one SELECT, without ANALYZE and without options.") from error
    if kinds != ["SELECT"]:
        raise UserError("EXPLAIN takes one SELECT, without ANALYZE and without options.")
    return inner


def _check_tree(text: str, parser: duckdb.DuckDBPyConnection | None) -> None:
    with duckdb.connect() if parser is None else nullcontext(parser) as db:
        found = db.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0]
    try:
        tree = json.loads(found)
    except RecursionError as error:
        raise UserError("The query is nested too deeply.") from error
    if tree.get("error") or len(tree.get("statements", ())) != 1:
        raise UserError(f"A query is one SELECT; this cannot be read as one ({tree.get('error_message', 'several')}).")
    for node in _nodes(tree):
        _check_node(node)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_node(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if not isinstance(kind, str):
        return
    if kind.endswith("_NODE") and kind not in _NODES:
        raise UserError(f"A query only reads; {kind.removesuffix('_NODE').removesuffix('_QUERY')} does not.")
    if kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise UserError(
                f"A query reads the run's tables, and not by {name[:60]}(). Of such functions there are: "
                f"{', '.join(_TABLE_FUNCTIONS)}."
            )
    elif kind == "BASE_TABLE":
        path = [str(part) for part in node.get("qualified_name", {}).get("path", ())] or [str(node.get("table_name"))]
        odd = next((part for part in path if not _PLAIN_NAME.fullmatch(part)), None)
        if odd is not None:
            raise UserError(f"A query reads the run's tables; '{odd[:60]}' is none (files cannot be named).")
    elif node.get("class") in ("FUNCTION", "WINDOW") and str(node.get("function_name")).lower() in _FUNCTIONS:
        raise UserError(f"The function {node['function_name'][:60]}() is not for queries.")
