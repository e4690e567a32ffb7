"""Recomputes what can be recomputed of `preference`, `unpaired`, `prompts` and `steps` of a release.

Reads a release folder that was let through, in batches; writes nothing. `cards/verify.py` runs it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cards.objectives.build import counted, shared_words
from cards.objectives.schema import columns_of, reasoning_key_of
from cards.schema import schema_of
from cards.shards import OBJECTIVES as FOLDER
from cards.shards import ContentHash, fenced, read_shards, shards_of
from pipelines.records import PATTERNS
from pipelines.thinking import join

# Gives what does not hold of a row, "" where all does.
RowCheck = Callable[[Mapping[str, Any], str], str]


def objective_faults(folder: Path, lineage: Mapping[str, Any], prompts: Mapping[str, str]) -> Iterator[str]:
    """A line for each thing that was computed again: "" where it matches, what does not otherwise.

    Args:
        folder: A release that may be read.
        lineage: Its lineage.
        prompts: The text of each prompt by its id.
    """
    stated = {name: entry for name, entry in lineage.get("objectives", {}).items() if entry["rows"]}
    there = {path.parent.name for path in (folder / FOLDER).rglob("*.parquet")}
    yield _unless(there == set(stated), f"{FOLDER} holds other configurations than lineage.json says")
    key = reasoning_key_of(dict(lineage))
    for name, entry in stated.items():
        sums = entry["used"] + sum(item["rows"] for item in entry["left_out"]) == entry["considered"]
        yield _unless(sums, f"{name}: rows used and left out are not those considered")
        yield from _read(folder, name, entry, key, prompts)
    yield from _beside(folder, lineage, stated, key)


def _unless(holds: bool, fault: str) -> str:
    return "" if holds else fault


def _read(
    folder: Path, name: str, entry: Mapping[str, Any], key: str, prompts: Mapping[str, str]
) -> Iterator[str]:
    """One configuration, read through: its rows, their hash, their counts, and whether each row fits together."""
    schema = schema_of(columns_of(name, key), key)
    content, rows, wrong, foreign = ContentHash(), 0, dict[str, int](), 0
    ids: list[str] = []

    def batches() -> Iterator[pa.Table]:
        nonlocal rows, foreign
        for batch in read_shards(folder, name):
            if batch.schema.names != schema.names or batch.cast(schema).schema != schema:
                raise ValueError("it has other columns than a release")
            content.update(batch)
            rows += batch.num_rows
            for row in batch.to_pylist():
                ids.append(row["id"])
                fault = _CHECKS[name](row, key)
                if fault:
                    wrong[fault] = wrong.get(fault, 0) + 1
                asked = row["prompt"] if name == "steps" else row["prompt"][0]["content"]
                foreign += prompts.get(row["id"] if name == "prompts" else row["prompt_id"]) != asked
            yield batch

    try:
        counts = counted(batches(), name)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException) as error:
        yield f"{FOLDER}/{name} cannot be read: {' '.join(str(error).split())[:200]}"
        return
    yield _unless(rows == entry["rows"], f"{name} has {rows} rows, lineage.json says {entry['rows']}")
    yield _unless(content.hexdigest() == entry["content"], f"{name} has other content than lineage.json says")
    yield _unless(counts == entry["counts"], f"{name}: what the card counts is not what the rows hold")
    yield _unless(ids == sorted(set(ids)), f"{name}: ids are not unique and in order")
    yield _unless(not foreign, f"{name}: {foreign} rows have a prompt that is not the release's")
    yield "; ".join(f"{name}: in {number} rows {fault}" for fault, number in wrong.items())


def _turn(turns: list[dict[str, str]], role: str, key: str) -> str:
    """The text of a conversation's one turn, reasoning and answer as one.

    Raises:
        ValueError: there are others, or it is another role's.
    """
    if [turn["role"] for turn in turns] != [role]:
        raise ValueError(f"a conversation is not one turn of {role}")
    (turn,) = turns
    return turn["content"] if key == "inline" or role == "user" else join(turn[key], turn["content"])


def _words(text: str) -> int:
    """Words of reasoning and answer, as DuckDB counts them; the two marks of the canonical string are none."""
    return len(re.findall(r"\S+", text, re.ASCII)) - 2


def _pair(row: Mapping[str, Any], key: str) -> str:
    chosen, rejected = (_turn(row[side], "assistant", key) for side in ("chosen", "rejected"))
    _turn(row["prompt"], "user", key)
    faults = row["faults"].split(",")
    if chosen == rejected:
        return "both sides are the same"
    if row["margin"] != len(faults) or row["margin"] < 1 or row["pattern"] != faults[0]:
        return "margin, pattern and faults do not fit together"
    if (_words(chosen), _words(rejected)) != (row["chosen_words"], row["rejected_words"]):
        return "words are not those of the sides"
    if shared_words(chosen, rejected) != row["shared_words"]:
        return "shared_words is not what both sides begin with"
    digest = sha256(f"{row['chosen_id']} {row['rejected_id']}".encode()).hexdigest()
    return _unless(row["id"] == digest[:16], "the id is not that of the pair")


def _label(row: Mapping[str, Any], key: str) -> str:
    _turn(row["completion"], "assistant", key)
    _turn(row["prompt"], "user", key)
    return _unless(row["label"] == (not row["faults"]), "label and faults do not fit together")


def _expected(row: Mapping[str, Any], key: str) -> str:
    _turn(row["prompt"], "user", key)
    return _unless(row["expected"] == {"benign": "help", "harmful": "refusal"}[row["kind"]], "expected is not kind's")


def _labelled(row: Mapping[str, Any], key: str) -> str:
    labels = row["labels"]
    first = labels.index(False) if False in labels else None
    if None in labels or None in row["completions"] or len(labels) != len(row["completions"]):
        return "sentences and labels do not fit together"
    by = "verdict" if first is None else "quotes"
    faults = first is None or bool(row["faults"])
    return _unless((row["first_wrong"], row["labelled_by"], True) == (first, by, faults), "the first false is another")


_CHECKS: Mapping[str, RowCheck] = {
    "preference": _pair,
    "unpaired": _label,
    "prompts": _expected,
    "steps": _labelled,
}


def _beside(folder: Path, lineage: Mapping[str, Any], stated: Mapping[str, Any], key: str) -> Iterator[str]:
    """Good sides are rows of the release, word by word, and carry nothing by their own verdict."""
    released = [path for name, count in lineage["rows"].items() if count for path in shards_of(folder, name)]
    flags = " OR ".join(f"coalesce({pattern}, false)" for pattern in PATTERNS)
    for name, row_id, side, good in (
        ("preference", "chosen_id", "chosen", "true"),
        ("unpaired", "id", "completion", "label"),
    ):
        if name not in stated:
            continue
        tables = shards_of(folder, name)
        try:
            with fenced([*released, *tables]) as db:
                db.read_parquet([str(path) for path in released], union_by_name=True).create_view("released")
                db.read_parquet([str(path) for path in tables]).create_view("beside")
                query = f"""
                    SELECT count(*) FROM beside LEFT JOIN (
                        SELECT id, md5(messages[1].content) AS asked, md5(messages[2]::VARCHAR) AS said
                        FROM released WHERE kind = 'benign' OR NOT ({flags})
                    ) AS there ON there.id = beside.{row_id}
                    WHERE {good} AND (asked, said) IS DISTINCT FROM (md5(prompt[1].content), md5({side}[1]::VARCHAR))
                """  # noqa: S608 - names of ours
                ((number,),) = db.sql(query).fetchall()
        except duckdb.Error as error:
            yield f"{FOLDER}/{name} cannot be compared with the rows ({' '.join(str(error).split())[:200]})"
            continue
        yield _unless(not number, f"{name}: {number} good sides are no rows of the release without a fault")
