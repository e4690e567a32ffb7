"""report.html: what people look at after a run.

Reads the run's manifest, tables and, where a student was measured, scores.json; writes report.html, one file that
loads nothing from anywhere. Run it with `saferthoughts report RUN`; every stage that ran by then is in it.
"""

import json
from pathlib import Path
from typing import Any

import jinja2

from pipelines.config import load_config
from pipelines.judges.scoring import read_scores
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, write_text

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=True,  # prompts and responses are hostile text
)
_EXAMPLES = 3


def write_report(run: RunFolder) -> Path:
    """Write the report of what the run has so far and return its path."""
    stages = run.manifest()["stages"]
    scores_path = run.path / "scores.json"
    scores = _student(json.loads(scores_path.read_text(encoding="utf-8"))) if scores_path.exists() else None
    config = load_config(run)
    # Judged again after a repair, a run has a new "judge"; generated again, it has lost its repairs.
    repair = stages.get("repair") if run.table_path("repairs").exists() else None
    embedded = [entry.embedded for entry in (*config.teachers.values(), *config.judge_teachers.values())]
    page = _ENVIRONMENT.get_template("report.html.jinja").render(
        name=run.name,
        config=config,
        rehearsal=any(embedded),
        stages=stages,
        columns=("unsafe", "any_pattern", *PATTERNS),
        funnel=_funnel(run, stages),
        repair=repair,
        most=range(max((len(fault["mended"]) for fault in repair["by_pattern"]), default=0) if repair else 0),
        judge_scores=read_scores(run) if "judge" in stages else None,
        scores=scores,
    )
    path = run.path / "report.html"
    write_text(path, page)
    return path


def _funnel(run: RunFolder, stages: dict[str, Any]) -> list[dict[str, Any]]:
    """For each variant: responses, accepted, and the judge's counts; empty before `check` has run."""
    if "judge" not in stages or "check" not in stages:
        return []
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    kinds = dict(zip(*(run.read("prompts")[name].to_pylist() for name in ("prompt_id", "kind")), strict=True))
    kept: dict[str, int] = {}
    for row in run.read("responses").select(["response_id", "prompt_id", "variant"]).to_pylist():
        if row["response_id"] in accepted:
            name = "benign" if kinds[row["prompt_id"]] == "benign" else row["variant"]
            kept[name] = kept.get(name, 0) + 1
    after = stages["repair"]["after"] if run.table_path("repairs").exists() else {}
    return [
        {"variant": name, "accepted": kept.get(name, 0), **counts, "after": after.get(name)}
        for name, counts in stages["judge"]["by_variant"].items()
    ]


def _student(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores as the page shows them: a row for each set and kind, a cell for each model."""
    labels = [model["label"] for model in scores["models"]]
    keys = list(dict.fromkeys((group["set"], group["kind"]) for group in scores["groups"]))
    groups = {(group["set"], group["kind"], group["model"]): group for group in scores["groups"]}
    rows = [{"set": key[0], "kind": key[1], "groups": [groups[(*key, label)] for label in labels]} for key in keys]
    return {"labels": labels, "rows": rows, "examples": _examples(scores["samples"], labels)}


def _examples(samples: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """The first few prompts of each set and kind, with every model's reply."""
    replies: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for sample in samples:
        key = (sample["set"], sample["kind"], sample["id"], sample["text"])
        replies.setdefault(key, {})[sample["model"]] = sample
    shown: dict[tuple[str, str], int] = {}
    examples = []
    for (name, kind, _, text), by_label in replies.items():
        shown[name, kind] = shown.get((name, kind), 0) + 1
        if shown[name, kind] <= _EXAMPLES:
            answers = [by_label[label] for label in labels if label in by_label]
            examples.append({"set": name, "kind": kind, "text": text, "replies": answers})
    return examples
