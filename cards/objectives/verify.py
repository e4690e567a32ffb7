"""Recomputes what can be recomputed of `preference`, `unpaired`, `prompts` and `steps` of a release.

Reads a release folder that was let through, in batches; writes nothing. `cards/verify.py` runs it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cards.objectives.build import counts_of
from cards.objectives.schema import columns_of, reasoning_key_of
from cards.rows.shards import OBJECTIVES as FOLDER
from cards.rows.shards import ContentHash, fenced, read_shards, shards_of
from pipelines.records import PATTERNS

# Good sides are rows of the release, word by word, and carry no pattern and nothing unsafe by their own verdict.
_GOOD = f"""
    SELECT id, md5(messages[1].content), md5(messages[2]::VARCHAR) FROM released
    WHERE safety_verdict IS DISTINCT FROM 'unsafe'
        AND (kind = 'benign' OR NOT ({" OR ".join(f"coalesce({pattern}, false)" for pattern in PATTERNS)}))
"""  # noqa: S608 - names of ours
_PROMPT = "(prompt_id, prompt[1].content) IN (SELECT prompt_id, text FROM prompts) AND len(prompt) = 1"
# What holds of every row, and what is wrong where it does not.
_HOLDS: Mapping[str, Mapping[str, str]] = {
    "preference": {
        "a prompt that is not the release's": _PROMPT,
        "sides that are not one assistant's turn each, or the same": "chosen <> rejected AND len(chosen) = 1 AND "
        "len(rejected) = 1 AND chosen[1].role = 'assistant' AND rejected[1].role = 'assistant'",
        "margin, pattern and faults that do not fit together": "margin > 0 AND margin = len(string_split(faults, ',')) "
        "AND pattern = string_split(faults, ',')[1] AND pattern <> ''",
        "words that are not those of the sides": "chosen_words = words(chosen) AND rejected_words = words(rejected)",
        "an id that is not the pair's": "id = left(sha256(chosen_id || ' ' || rejected_id), 16)",
        "a chosen side that is no row of the release without a fault": "(chosen_id, md5(prompt[1].content), "
        f"md5(chosen[1]::VARCHAR)) IN ({_GOOD})",
    },
    "unpaired": {
        "a prompt that is not the release's": _PROMPT,
        "a label that is not that of its faults": "label = (faults = '') AND len(completion) = 1 AND "
        "completion[1].role = 'assistant'",
        "a good completion that is no row of the release without a fault": "NOT label OR (id, "
        f"md5(prompt[1].content), md5(completion[1]::VARCHAR)) IN ({_GOOD})",
    },
    "prompts": {
        "a prompt that is not the release's": _PROMPT.replace("prompt_id, prompt", "id, prompt", 1),
        "what is expected of another kind": "expected = CASE kind WHEN 'benign' THEN 'help' ELSE 'refusal' END",
    },
    "steps": {
        "a prompt that is not the release's": "(prompt_id, prompt) IN (SELECT prompt_id, text FROM prompts)",
        "sentences and labels that do not fit together": "len(labels) = len(completions) AND len(labels) > 0 AND "
        "len(list_filter(labels, lambda label: label IS NULL)) = 0",
        "another first sentence that is false": "first_wrong IS NOT DISTINCT FROM "
        "nullif(coalesce(list_position(labels, false), 0), 0) - 1 AND labelled_by = "
        "CASE WHEN first_wrong IS NULL THEN 'verdict' ELSE 'quotes' END",
    },
}


def objective_faults(folder: Path, lineage: Mapping[str, Any], prompts: pa.Table) -> Iterator[str]:
    """A line for each thing that was computed again: "" where it matches, what does not otherwise."""
    stated = {name: entry for name, entry in lineage.get("objectives", {}).items() if entry["rows"]}
    there = {path.parent.name for path in (folder / FOLDER).rglob("*.parquet")}
    yield "" if there == set(stated) else f"{FOLDER} holds other configurations than lineage.json says"
    for name, entry in stated.items():
        try:
            checked = dict(_checked(folder, lineage, name, entry, prompts))
        except (OSError, ValueError, duckdb.Error) as error:
            yield f"{FOLDER}/{name} cannot be read: {' '.join(str(error).split())[:200]}"
            continue
        yield from ("" if holds else f"{name}: {fault}" for fault, holds in checked.items())


def _checked(
    folder: Path, lineage: Mapping[str, Any], name: str, entry: Mapping[str, Any], prompts: pa.Table
) -> Iterator[tuple[str, bool]]:
    key = reasoning_key_of(lineage)
    columns = [column.name for column in columns_of(name, key)]
    content = ContentHash()
    for batch in read_shards(folder, name):
        if batch.schema.names != columns:
            raise ValueError("it has other columns than a release")
        content.update(batch)
    yield "other content than lineage.json says", content.hexdigest() == entry["content"]
    yield "the card counts other rows than there are", counts_of(folder, name) == entry["counts"]
    left_out = sum(item["rows"] for item in entry["left_out"])
    yield "rows used and left out are not those considered", entry["used"] + left_out == entry["considered"]
    released = [path for config, count in lineage["rows"].items() if count for path in shards_of(folder, config)]
    tables, holds = shards_of(folder, name), _HOLDS[name]
    with fenced([*released, *tables]) as db:
        db.read_parquet([str(path) for path in released]).create_view("released")
        db.read_parquet([str(path) for path in tables]).create_view("rows")
        db.register("prompts", prompts)
        # The two marks of the canonical string are no words.
        words = "len(regexp_extract_all({}, '\\S+'))".format
        apart = f"+ {words(f'side[1].{key}')}" if key != "inline" else "- 2"
        db.execute(f"CREATE TEMP MACRO words(side) AS {words('side[1].content')} {apart}")
        wrong = (f"count(*) FILTER (NOT coalesce({what}, false))" for what in holds.values())
        query = f"SELECT count(*), count(DISTINCT id), {', '.join(wrong)} FROM rows"  # noqa: S608
        ((rows, distinct, *numbers),) = db.sql(query).fetchall()
    yield f"{rows} rows, {distinct} ids, lineage.json says {entry['rows']}", rows == distinct == entry["rows"]
    for fault, number in zip(holds, numbers, strict=True):
        yield f"{number} rows have {fault}", not number
