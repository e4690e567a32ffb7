"""The history of one response: prompt, attempts, judgements, checks, and whether it was accepted and selected.

Reads the run's tables (`curation/sql/views.py`); writes nothing. Run it with `saferthoughts check RUN --explain ID`.
"""

import json
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from curation.sql.views import open_views
from pipelines.errors import UserError
from pipelines.records import LABELS
from pipelines.runs import RunFolder

# Columns of a response that its own line shows.
_FACTS = (
    "variant",
    "model",
    "sample",
    "attempt",
    "finish_reason",
    "reasoning_source",
    "output_tokens",
    "request_key",
)


@dataclass(frozen=True, slots=True)
class RowHistory:
    """Titles with texts, in order. Texts are as the tables have them: hostile."""

    parts: tuple[tuple[str, str], ...]


def row_history(run: RunFolder, response_id: str) -> RowHistory:
    """The history of a response by its id, or by the beginning of it.

    Raises:
        UserError: there is no such response, or several begin like that.
    """
    with open_views(run, "prompts", "responses") as db:
        found = _rows(db, "SELECT * FROM responses WHERE starts_with(response_id, $id)", response_id)
        if len(found) != 1:
            raise UserError(
                f"{run.path} has {len(found) or 'no'} responses whose id begins with '{response_id}'. Ids are in "
                f"responses.parquet, and in rejected.parquet beside what was objected to: saferthoughts sql {run.name}"
            )
        (response,) = found
        rows = _rows_about(db, response)
    name = response["response_id"]
    (prompt,) = rows["prompts"]
    parts = [
        (
            "response",
            ", ".join([name, *(f"{key} {response[key]}" for key in _FACTS if response[key] not in (None, ""))]),
        ),
        (f"prompt ({prompt['kind']}, {prompt['category']}, {prompt['template_id'] or 'bare'})", prompt["text"]),
        ("reasoning", response["reasoning"]),
        ("answer", response["answer"]),
        *((f"judge {item['judge']}", _judgement(item)) for item in rows["judgements"]),
        *(("verdict", _judgement(item)) for item in rows["verdicts"]),
    ]
    if rows["attempts"]:
        parts.append(("attempts", "\n".join(_attempt(item, name) for item in rows["attempts"])))
    parts += [("near-duplicate", item["why"]) for item in rows["duplicates"]]
    parts += [
        ("overlap", f"{item['set_name']} {item['item_id']}, {item['method']}: {item['span']}")
        for item in rows["overlaps"]
    ]
    parts.append(("checks", _checks(run, bool(rows["accepted"]), rows["rejected"])))
    parts += [("selected", f"for {item['config']}, stratum {item['stratum']}") for item in rows["selected"][:1]]
    return RowHistory(tuple(parts))


def _rows_about(db: duckdb.DuckDBPyConnection, response: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What each table has about a response: its own rows, and those of its prompt and of its other attempts."""
    name = response["response_id"]
    return {
        "prompts": _rows(db, "SELECT * FROM prompts WHERE prompt_id = $id", response["prompt_id"]),
        "judgements": _rows(db, "SELECT * FROM judgements WHERE response_id = $id ORDER BY judge", name),
        "verdicts": _rows(db, "SELECT * FROM verdicts WHERE response_id = $id", name),
        "attempts": _rows(
            db,
            "SELECT * FROM repairs WHERE root_id IN (SELECT root_id FROM repairs WHERE response_id = $id) "
            "ORDER BY attempt",
            name,
        ),
        "rejected": _rows(db, "SELECT * FROM rejected WHERE response_id = $id", name),
        "accepted": _rows(db, "SELECT * FROM accepted WHERE response_id = $id", name),
        "selected": _rows(db, "SELECT * FROM selected WHERE response_id = $id", name),
        "duplicates": _rows(db, "SELECT * FROM duplicates WHERE item_id = $id", name),
        "overlaps": _rows(
            db,
            "SELECT contamination.* FROM contamination JOIN responses USING (prompt_id) "
            "WHERE responses.response_id = $id AND contamination.response_id IN ('', $id)",
            name,
        ),
    }


def _rows(db: duckdb.DuckDBPyConnection, query: str, response_id: str) -> list[dict[str, Any]]:
    found: pa.Table = db.sql(query, params={"id": response_id}).to_arrow_table()
    return [dict(row) for row in found.to_pylist()]


def _judgement(item: dict[str, Any]) -> str:
    labels = [label for label in LABELS if item[label]]
    unknown = all(item[label] is None for label in LABELS) and item["compliance"] is None
    words = [", ".join(labels) or ("" if unknown else item["compliance"] or "no pattern"), item["safety"] or ""]
    refused = {True: "refuses", False: "does not refuse", None: ""}[item["refused"]]
    lines = [", ".join(word for word in [*words, refused] if word)]
    lines += [f"unscored: {item[key]}" for key in ("reason", "safety_reason") if item.get(key)]
    lines += [f"analysis: {item['analysis']}"] if item.get("analysis") else []
    places = {
        place["label"]: f" (sentence {place['sentence'] + 1} of {place['sentences']} of the {place['part']})"
        for place in reversed(json.loads(item.get("spans") or "[]"))
        if place["part"]
    }
    quotes = json.loads(item["evidence"] or "{}").items()
    lines += [f"{label}: {span!r}{places.get(label, '')}" for label, span in quotes]
    return "\n".join(line for line in lines if line)


def _attempt(item: dict[str, Any], here: str) -> str:
    marks = [word for word, true in (("kept", item["chosen"]), ("this one", item["response_id"] == here)) if true]
    faults = item["flagged"] or ("unscored" if item["patterns"] is None else "no fault")
    line = f"{item['attempt']}: {item['response_id']} ({item['strategy']}): {faults}"
    return "; ".join([line, ", ".join(marks)]) if marks else line


def _checks(run: RunFolder, accepted: bool, objections: list[dict[str, Any]]) -> str:
    if objections:
        return "rejected\n" + "\n".join(
            f"{item['check_name']}: {item['reason']}" + (f" ({item['value']})" if item["value"] else "")
            for item in objections
        )
    return "accepted" if accepted else f"not checked yet: saferthoughts check {run.name}"
