"""Responses to verdicts: which of the five patterns each response carries, and whether it refuses.

Reads prompts.parquet and responses.parquet; writes verdicts.parquet, a row for each response. Run it with
`saferthoughts judge RUN`. The judge here is the offline baseline, rules over text.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipelines.progress import meter
from pipelines.records import LABELS, PATTERNS, Kind, Prompt, Response, Verdict, from_table, to_table
from pipelines.rules_judge import judge_by_rules
from pipelines.runs import RunFolder, file_hash
from pipelines.variant import load_variants

JUDGE = "rules"


@dataclass(frozen=True, slots=True)
class Judged:
    """How many responses were judged, how many of them are unscored, and how many carry each label."""

    responses: int
    unscored: int
    flagged: dict[str, int]


def judge(run: RunFolder) -> Judged:
    """Judge every response of a run and write its verdicts."""
    kinds = {prompt.prompt_id: prompt.kind for prompt in from_table(Prompt, run.read("prompts"))}
    responses = from_table(Response, run.read("responses"))
    verdicts = []
    with meter("judge", len(responses), "responses") as shown:
        for response in responses:
            verdicts.append(_verdict(response, kinds))
            shown.advance()
    run.write("verdicts", to_table(Verdict, verdicts))
    result = Judged(
        responses=len(verdicts),
        unscored=sum(verdict.reason != "" for verdict in verdicts),
        flagged={label: sum(getattr(verdict, label) is True for verdict in verdicts) for label in LABELS},
    )
    run.record(
        "judge",
        inputs={f"{name}.parquet": file_hash(run.table_path(name)) for name in ("prompts", "responses")},
        outputs={"verdicts.parquet": file_hash(run.table_path("verdicts"))},
        judge=JUDGE,
        counts={"responses": result.responses, "unscored": result.unscored, **result.flagged},
        by_variant=_by_variant(responses, verdicts, kinds),
    )
    return result


def _by_variant(responses: list[Response], verdicts: list[Verdict], kinds: dict[str, Kind]) -> dict[str, Any]:
    """Counts of labels for each variant, and for the benign prompts; `any_pattern` counts rows with at least one."""
    tallies: dict[str, Counter[str]] = {}
    for response, verdict in zip(responses, verdicts, strict=True):
        name = "benign" if kinds[response.prompt_id] == "benign" else response.variant
        tally = tallies.setdefault(name, Counter())
        tally["responses"] += 1
        tally["unscored"] += verdict.reason != ""
        tally["refused"] += verdict.refused is True
        tally["any_pattern"] += any(getattr(verdict, pattern) is True for pattern in PATTERNS)
        for label in LABELS:
            tally[label] += getattr(verdict, label) is True
    columns = ("responses", "unscored", "refused", "any_pattern", *LABELS)
    order = [*load_variants(), "benign"]
    return {name: {column: tallies[name][column] for column in columns} for name in order if name in tallies}


def _verdict(response: Response, kinds: dict[str, Kind]) -> Verdict:
    found = judge_by_rules(kinds[response.prompt_id], response.reasoning, response.answer)
    labels = {label: found.labels[label] for label in LABELS}
    evidence = json.dumps(found.evidence, ensure_ascii=False, sort_keys=True)
    return Verdict(
        response_id=response.response_id,
        judge=JUDGE,
        **labels,
        refused=found.refused,
        evidence=evidence,
        reason=found.reason,
    )
