"""The figures of a report, as plain values: what report.json holds and report.html shows.

Reads a run's manifest and tables (`curation/sql/views.py`) and, where they are, judge_scores.json, agreement.json and
eval/results.json; writes nothing. What a run has not got yet is null or empty here, never guessed.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import duckdb

from curation.report.drift import drift_of
from curation.report.excerpts import cut, excerpts_of
from curation.report.student import evaluated
from curation.report.survivorship import survivorship
from curation.review.gate import agreement_of
from curation.sql.views import open_views
from pipelines.freshness import stale
from pipelines.judges.alone import RULES_ALONE, rules_alone
from pipelines.judges.scoring import read_scores, read_stress
from pipelines.prompts.mildness import severity_sql
from pipelines.prompts.variant import load_variants
from pipelines.records import PATTERNS
from pipelines.runs import WRITTEN_BY, RunFolder
from pipelines.settings.changes import knows_baseline
from pipelines.settings.config import RunConfig, load_config
from pipelines.statistics import wilson
from pipelines.study import STUDY_LENGTHS

RATES = ("any_pattern", *PATTERNS, "unsafe")
_EXAMPLES = 3


def figures_of(run: RunFolder) -> dict[str, Any]:
    """Every figure of a run's report.

    Raises:
        UserError: a table of the run is broken.
    """
    config = load_config(run)
    stages = run.manifest()["stages"]
    repaired = run.table_path("repairs").exists() and "repair" in stages
    checked = "check" in stages and "judge" in stages
    embedded = [entry.embedded for entry in (*config.teachers.values(), *config.judge_teachers.values())]
    results = run.path / "eval" / "results.json"
    people = agreement_of(run)
    with open_views(run) as db:
        figures = {
            "run": run.name,
            "seed": config.seed,
            "variants": list(config.variants),
            "benign_variant": config.benign_variant,
            "baselines": _baselines(run, config),
            "teachers": {name: {"model": t.model, "place": t.place} for name, t in config.teachers.items()},
            "rehearsal": any(embedded),
            "rules_alone": RULES_ALONE if rules_alone(config) else "",
            "stages": {name: entry["finished"] for name, entry in stages.items()},
            "stale": [str(item) for item in stale(run, *WRITTEN_BY)],
            "prompts": stages.get("prompts", {}).get("counts"),
            "generated": stages.get("generate", {}).get("counts"),
            "failures": stages.get("generate", {}).get("failures"),
            "funnel": _funnel(db, stages, repaired, failed_by_config(run)) if checked else [],
            "patterns": patterns_of(stages, repaired, people) if "judge" in stages else [],
            "repair": _kept(stages["repair"]) if repaired else None,
            "judging": _judging(run, config.judging.vote, stages) if "judge" in stages else None,
            "drift": drift_of(db) if "judge" in stages else None,
            "lengths": lengths_of(db),
            "checks": stages["check"]["reasons"] if checked else [],
            "examples": _examples(db) if checked else [],
            "excerpts": excerpts_of(db) if "judge" in stages else [],
            "duplicates": stages.get("duplicates") and stages["duplicates"]["counts"],
            "contamination": stages.get("contamination") and stages["contamination"]["counts"],
            "costs": costs_of(db),
            "survivorship": _survivorship(run) if checked else None,
            "people": people,
            "selection": stages.get("select") and stages["select"]["draws"],
            "student": evaluated(results, run.name) if results.exists() else None,
        }
    return dict(known(figures))


def _baselines(run: RunFolder, config: RunConfig) -> list[dict[str, Any]]:
    """Variants that a teacher answers and whose rows are kept with the patterns that they carry."""
    baseline = knows_baseline(run)
    return [
        {"variant": name, "repaired": config.repairs(name)}
        for name in config.variants
        if config.teacher_of(name) and not config.checks_patterns(name, baseline)
    ]


def known(value: Any) -> Any:
    """NaN, which a broken table can hold and JSON cannot, as null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: known(inner) for key, inner in value.items()}
    return [known(inner) for inner in value] if isinstance(value, list | tuple) else value


def _rows(db: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in db.sql(query).to_arrow_table().to_pylist()]


def _funnel(
    db: duckdb.DuckDBPyConnection, stages: dict[str, Any], repaired: bool, failed: Mapping[str, int]
) -> list[dict[str, Any]]:
    """For each configuration the rows that each step kept of those before: planned, answered, accepted, selected,
    released. A row and repair's attempts at it count once; `attempts` are counted beside them."""
    found = {
        row["config"]: row
        for row in _rows(
            db,
            """
            SELECT CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config,
                count(DISTINCT prompt_id) AS prompts,
                count(*) FILTER (responses.attempt = 0) AS answered,
                count(*) FILTER (responses.attempt > 0) AS attempts,
                count(DISTINCT coalesce(root_id, response_id))
                    FILTER (response_id IN (SELECT response_id FROM accepted)) AS accepted,
                count(*) FILTER (response_id IN (SELECT response_id FROM selected)) AS selected
            FROM responses JOIN prompts USING (prompt_id) LEFT JOIN repairs USING (response_id) GROUP BY ALL
            """,
        )
    }
    clean = {part["variant"]: part["filter"] for part in stages["repair"]["by_variant"]} if repaired else {}
    unscored = {name: entry["unscored"] for name, entry in stages["judge"]["by_variant"].items()}
    released = stages.get("release", {}).get("rows")
    selected = "select" in stages
    for name, row in found.items():
        if row["accepted"] > row["answered"]:
            raise RuntimeError(f"{name}: {row['accepted']} rows accepted of {row['answered']} answered")
    return [
        {
            **found[name],
            "planned": found[name]["answered"] + failed.get(name, 0),
            "unscored": unscored[name],
            "filter": clean.get(name),
            "selected": found[name]["selected"] if selected else None,
            "released": None if released is None else released.get(name, 0),
        }
        for name in _order(found)
    ]


def failed_by_config(run: RunFolder) -> dict[str, int]:
    """Planned responses that never came, by configuration."""
    if not run.table_path("failed").exists():
        return {}
    kinds = dict(zip(*(run.read("prompts")[name].to_pylist() for name in ("prompt_id", "kind")), strict=True))
    failed = run.read("failed")
    # What an imported dataset could not give has neither prompt nor variant.
    if not {"prompt_id", "variant"} <= set(failed.column_names):
        return {}
    rows = zip(failed["prompt_id"].to_pylist(), failed["variant"].to_pylist(), strict=True)
    return Counter("benign" if kinds[prompt] == "benign" else variant for prompt, variant in rows)


def _order(names: Any) -> list[str]:
    return [name for name in (*load_variants(), "benign") if name in names]


def patterns_of(
    stages: dict[str, Any], repaired: bool, people: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """For each configuration and label the share of judged rows that carry it, before and after repair, and of the
    rows as they stand the share by people's votes and the judges together, None where nobody voted on it."""
    # What an earlier version wrote of people's votes corrects nothing.
    corrected = {(one["config"], one["label"]): one for one in (people or {}).get("corrected", ()) if one["votes"]}
    before = stages["judge"]["by_variant"]
    after = stages["repair"]["after"] if repaired else {}
    return [
        {
            "config": name,
            "label": label,
            "before": _share(before[name], label),
            "after": _share(after[name], label) if name in after else None,
            "corrected": corrected.get((name, label)),
        }
        for name in _order(before)
        for label in RATES
        if before[name]["responses"] > before[name]["fixed"]
    ]


def judged_rows(counts: dict[str, Any], label: str) -> int:
    """How many rows of a configuration were judged for a finding; lineages before version 2 did not tell them apart."""
    of = counts.get("of")
    return int(of[label] if of else counts["responses"] - counts["unscored"] - counts["fixed"])


def _share(counts: dict[str, Any], label: str) -> dict[str, Any]:
    """The share with its interval; nulls where nobody was asked, and no rate where the judges could not tell the
    finding of every row that they judged, but of `judged` of them only."""
    judged, untold = judged_rows(counts, label), counts.get("untold", {}).get(label, 0)
    if counts[label] is None or not judged:
        return {"count": None, "of": 0, "judged": 0, "rate": None, "low": None, "high": None}
    found = {"count": counts[label], "of": judged + untold, "judged": judged}
    if untold:
        return {**found, "rate": None, "low": None, "high": None}
    rate = wilson(counts[label], judged)
    return {**found, "rate": rate.rate, "low": rate.low, "high": rate.high}


def _kept(stage: dict[str, Any]) -> dict[str, Any]:
    apart = ("finished", "version", "outputs", "templates", "after")
    # Older runs do not count what a request failed for.
    return {"failures": None, **{key: value for key, value in stage.items() if key not in apart}}


def _judging(run: RunFolder, vote: str, stages: dict[str, Any]) -> dict[str, Any]:
    stage = stages["judge"]
    return {
        "judges": stage["judge"].split("+"),
        "cascades": stage.get("cascades") or {},
        "vote": vote,
        "responses": stage["counts"]["responses"],
        "unscored": stage["counts"]["unscored"],
        "failures": stage.get("failures"),
        "disagreement": stage["disagreement"],
        "scores": read_scores(run),
        "stress": read_stress(run),
    }


def lengths_of(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Tokens of the responses by the endpoint's count, all as generated and the accepted ones, beside the study's."""
    found = {
        row["config"]: row
        for row in _rows(
            db,
            """
            WITH rows AS (
                SELECT CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config, output_tokens AS tokens,
                    attempt = 0 AS generated, response_id IN (SELECT response_id FROM accepted) AS accepted
                FROM responses JOIN prompts USING (prompt_id) WHERE output_tokens > 0
            )
            SELECT config,
                count(*) FILTER (generated) AS rows,
                avg(tokens) FILTER (generated) AS mean,
                quantile_cont(tokens, 0.1) FILTER (generated) AS p10,
                quantile_cont(tokens, 0.5) FILTER (generated) AS median,
                quantile_cont(tokens, 0.9) FILTER (generated) AS p90,
                count(*) FILTER (accepted) AS accepted_rows,
                avg(tokens) FILTER (accepted) AS accepted_mean,
                quantile_cont(tokens, 0.9) FILTER (accepted) AS accepted_p90
            FROM rows GROUP BY config
            """,
        )
    }
    names = ("study_mean", "study_p90", "study_safe_mean", "study_safe_p90")
    return [
        {**found[name], **dict(zip(names, STUDY_LENGTHS.get(name, (None,) * 4), strict=True))}
        for name in _order(found)
        if found[name]["rows"]
    ]


def _examples(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """A few rows of each check and reason, mild ones first, long texts cut with a note of how long they are; with
    what judges quote of them, by label."""
    rows = _rows(
        db,
        f"""
        SELECT check_name, rejected_reason AS reason, value, responses.response_id, responses.variant, prompts.kind,
            coalesce(verdicts.evidence, '{{}}') AS evidence,
            {", ".join(cut(column) for column in ("text", "reasoning", "answer"))}
        FROM (
            SELECT response_id, check_name, reason AS rejected_reason, value, row_number() OVER (
                PARTITION BY check_name, reason ORDER BY {severity_sql("category", "kind")}, response_id
            ) AS place
            FROM rejected JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
        )
        JOIN responses USING (response_id)
        JOIN prompts USING (prompt_id)
        LEFT JOIN verdicts USING (response_id)
        WHERE place <= {_EXAMPLES}
        ORDER BY check_name, rejected_reason, place
        """,  # noqa: S608
    )
    return [{**row, "evidence": json.loads(row["evidence"])} for row in rows]


def costs_of(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Requests, tokens and US dollars for the responses, repair's attempts, and each judge; imported rows were not
    asked for, and what they took is not known."""
    return _rows(
        db,
        """
        SELECT CASE WHEN attempt = 0 THEN 'responses' ELSE 'repair' END AS what, teacher AS who,
            count(*) AS requests, sum(input_tokens)::BIGINT AS input_tokens,
            sum(output_tokens)::BIGINT AS output_tokens, sum(cost) AS cost
        FROM responses WHERE teacher NOT IN ('', 'dataset') GROUP BY ALL
        UNION ALL
        SELECT 'verdicts', judge, sum(requests)::BIGINT, sum(input_tokens)::BIGINT,
            sum(output_tokens)::BIGINT, sum(cost)
        FROM judgements GROUP BY judge HAVING sum(requests) > 0
        ORDER BY what, who
        """,
    )


def _survivorship(run: RunFolder) -> dict[str, Any]:
    found = survivorship(run, load_config(run).variants)
    return {
        "losses": [{**asdict(item), "taken": dict(item.taken), "alone": dict(item.alone)} for item in found.losses],
        "biases": [asdict(item) for item in found.biases],
        "dependences": [asdict(item) for item in found.dependences],
    }
