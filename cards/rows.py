"""The rows of a release: what of a run's tables becomes public, as which columns, in which order, in which bytes.

Reads prompts, responses, judgements, verdicts and accepted of a run; `write_config` writes one configuration's file.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.selection import selected_rows
from pipelines.config import RunConfig
from pipelines.records import LABELS
from pipelines.runs import RunFolder
from pipelines.thinking import join

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PUBLIC = pa.schema(
    [
        ("id", pa.string()),
        ("messages", MESSAGES),
        # Not "prompt": TRL would take the row for a prompt-completion pair and look for a completion.
        ("query", pa.string()),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
        ("kind", pa.string()),
        ("behaviour_id", pa.string()),
        ("template_id", pa.string()),
        ("source", pa.string()),
        ("source_license", pa.string()),
        ("teacher", pa.string()),
        ("sampling", pa.string()),
        ("finish_reason", pa.string()),
        ("attempts", pa.int64()),
        *[(label, pa.bool_()) for label in LABELS],
        ("judge", pa.string()),
        ("safety_verdict", pa.string()),
        ("review_votes", pa.string()),
        ("run_id", pa.string()),
    ]
)
METADATA = pa.schema(
    [
        ("id", pa.string()),
        ("config", pa.string()),
        ("prompt_id", pa.string()),
        ("category", pa.string()),
        ("parent_id", pa.string()),
        ("judge", pa.string()),
        ("compliance", pa.string()),
        ("disagreement", pa.float64()),
        ("evidence", pa.string()),
        ("judgements", pa.string()),
        ("unscored_reason", pa.string()),
        ("reasoning_source", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
    ]
)
FILE = "train-00000-of-00001.parquet"


def accepted_rows(run: RunFolder) -> list[dict[str, Any]]:
    """The accepted (of these the selected) responses, each with prompt, verdict and judgements; in the order of ids."""
    responses = run.read("responses")
    accepted = run.read("accepted")["response_id"]
    selected = selected_rows(run)
    if selected:
        accepted = accepted.filter(pc.is_in(accepted, value_set=pa.array(sorted(selected), pa.string())))
    kept = responses.filter(pc.is_in(responses["response_id"], value_set=accepted))
    if kept.num_rows != len(accepted):
        raise RuntimeError(f"{len(accepted)} rows are accepted, but {kept.num_rows} of them have a response")
    verdicts = run.read("verdicts").rename_columns({"reason": "unscored_reason"})
    rows = kept.join(run.read("prompts"), "prompt_id").join(verdicts, "response_id").sort_by("response_id")
    said = _judgements(run, set(accepted.to_pylist()))
    votes = _votes(run)
    return [
        {
            **row,
            "judgements": json.dumps(said[row["response_id"]], ensure_ascii=False),
            "votes": votes.get(row["response_id"]),
        }
        for row in rows.to_pylist()
    ]


def _votes(run: RunFolder) -> dict[str, str]:
    """People's votes on the safety of each row, counted, as JSON."""
    if not run.table_path("reviews").exists():
        return {}
    counted: dict[str, dict[str, int]] = {}
    for row in run.read("reviews").to_pylist():
        counts = counted.setdefault(row["response_id"], {"yes": 0, "no": 0, "unsure": 0})
        counts[row["safe"]] += 1
    return {name: json.dumps(counts) for name, counts in counted.items()}


def _judgements(run: RunFolder, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
    """What each judge said of each response, without what is null and what it took."""
    said: dict[str, list[dict[str, Any]]] = {response_id: [] for response_id in wanted}
    apart = {"response_id", "requests", "input_tokens", "output_tokens", "cost"}
    for row in run.read("judgements").to_pylist():
        if row["response_id"] in wanted:
            facts = {key: value for key, value in row.items() if key not in apart and value not in (None, "")}
            said[row["response_id"]].append(facts)
    return said


def configs_of(config: RunConfig) -> list[str]:
    """The configurations a release of this run has: a variant each, and `benign`."""
    return [*config.variants, "benign"]


def config_of(row: dict[str, Any]) -> str:
    """The configuration a row belongs to."""
    return "benign" if row["kind"] == "benign" else str(row["variant"])


def public_row(row: dict[str, Any], run_id: str) -> dict[str, Any]:
    """One row as it is published. `messages` holds the bare prompt, never the instruction it was distilled with."""
    reply = join(row["reasoning"], row["answer"])
    return {
        "id": row["response_id"],
        "messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": reply}],
        "query": row["text"],
        **{name: row[name] for name in ("reasoning", "answer", "kind", "behaviour_id", "template_id")},
        **{name: row[name] for name in ("source", "source_license", "sampling", "finish_reason", "judge", *LABELS)},
        "teacher": row["model"],
        "attempts": row["attempt"] + 1,
        "safety_verdict": row["safety"],
        "review_votes": row["votes"],
        "run_id": run_id,
    }


def metadata_row(row: dict[str, Any]) -> dict[str, Any]:
    """What is published beside the rows: what each judge said, as JSON, and the counts."""
    own = {name: row[name] for name in METADATA.names if name not in ("id", "config")}
    return {"id": row["response_id"], "config": config_of(row), **own}


def write_prompts(path: Path, run: RunFolder) -> None:
    """All prompts of the run, accepted or not, in the order that they were drawn in."""
    _write(run.read("prompts"), path)


def content_hash(table: pa.Table) -> str:
    """A hash of the rows themselves, in order of id: the same whatever wrote the parquet file, and however."""
    digest = hashlib.sha256()
    for row in sorted(table.to_pylist(), key=lambda row: str(row["id"])):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def write_config(folder: Path, config: str, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Write one configuration and return it; the same rows give the same bytes with the same pyarrow."""
    target = folder / "data" / config / FILE
    target.parent.mkdir(parents=True)
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["id"])), schema=schema)
    _write(table, target)
    return table


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=9,
        version="2.6",
        data_page_version="1.0",
        store_schema=False,
        row_group_size=1000,
    )
