"""How a release came to be, as the plain values of lineage.json.

Reads a run's configuration, manifest, tables and judge scores; writes nothing. Holds no paths and no
times but one day, so that the same inputs give the same release.
"""

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from cards.card.dataset_card import template_hash
from cards.card.imported import imported_of
from cards.release.provenance import packages, source_state
from cards.rows.schema import FORMAT
from curation.datasets.reading import TEACHER
from curation.report.data import costs_of, known, lengths_of, patterns_of
from curation.report.survivorship import survival_counts
from curation.review.gate import agreement_of
from pipelines.judges.patterns import rubric
from pipelines.judges.scoring import read_scores, read_stress
from pipelines.prompts.published import name_of
from pipelines.public_names import public_values
from pipelines.records import PATTERNS
from pipelines.runs import VERSION, RunFolder
from pipelines.settings.changes import is_imported, knows_baseline
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import Judge
from pipelines.settings.teacher import Teacher, load_teachers


def lineage_of(
    run: RunFolder, db: duckdb.DuckDBPyConnection, config: RunConfig, run_id: str, rows: dict[str, int]
) -> dict[str, Any]:
    """The lineage, but for content hashes, sizes and the sample row.

    Args:
        run: A run that is checked.
        db: Its tables, with the view `released` (`cards.rows.rows.released_views`).
        run_id: The configuration's hash.
        rows: Released rows of each configuration.
    """
    stages = run.manifest()["stages"]
    pool = stages["prompts"]["pool"]
    return {
        "format": FORMAT,
        "version": config.release.version,
        "title": config.release.title,
        "repo": config.release.repo,
        "date": str(config.release.date or stages["generate"]["finished"][:10]),
        "license": config.release.license,
        "language": list(config.release.language),
        "gating": config.release.gating and config.release.gating.model_dump(mode="json"),
        "run_id": run_id,
        "saferthoughts": VERSION,
        "seed": config.seed,
        "rehearsal": any(teacher.embedded for teacher in config.teachers.values()),
        "rehearsal_judges": [
            name
            for name, judge in _judges(config).items()
            if judge.teacher and config.judge_teachers[judge.teacher].embedded
        ],
        "imported": imported_of(stages, db),
        "regenerated_from": stages["prompts"].get("regenerated_from"),
        "prompts": {**pool, **stages["prompts"]["counts"]},
        "teachers": {name: _teacher(teacher) for name, teacher in config.teachers.items()},
        "variants": _variants(config, knows_baseline(run), is_imported(run), _flagged(db)),
        "benign_variant": config.benign_variant,
        "judging": _judging(run, config, stages["judge"]),
        "repair": _repair(stages.get("repair") if run.table_path("repairs").exists() else None),
        "queries": stages["check"]["queries"],
        "counts": _counts(stages),
        "failures": _failures(stages["generate"]),
        "reasons": stages["check"]["reasons"],
        "selection": _selection(run, stages.get("select")),
        "people": _people(run),
        "overlap": _overlap(run, db, stages.get("contamination")),
        "funnel": stages["judge"]["by_variant"],
        "rows": rows,
        "sources": _sources(db),
        "figures": _figures(run, db, stages),
        "inputs": _inputs(db),
        "config": published(config),
        "card_sha256": template_hash(),
        "packages": packages(),
        "source": source_state(),
    }


def _variants(
    config: RunConfig, baseline: bool, imported: bool, flagged: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """How each variant was made; `flagged` counts its released harmful rows with a pattern. Of one that was imported
    nobody was asked: who mended its rows is not its teacher."""
    return {
        name: {
            "teacher": TEACHER if imported and config.teacher_of(name) else config.teacher_of(name),
            "description": config.variant(name).description,
            "repaired": config.repairs(name),
            "pattern_checked": config.checks_patterns(name, baseline),
            "flagged": flagged.get(name, 0),
            "instruction": config.variant(name).instruction,
            "instruction_sha256": config.variant(name).instruction_hash(),
        }
        for name in config.variants
    }


def _counts(stages: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Rows that went through generation, judging and the checks."""
    return {
        "generate": {key: stages["generate"]["counts"][key] for key in ("planned", "kept", "failed")},
        "judge": stages["judge"]["counts"],
        "check": stages["check"]["counts"],
    }


def published(config: RunConfig) -> dict[str, Any]:
    """The run's settings without teachers, endpoints and paths, which act or describe a machine."""
    values = config.model_dump(mode="json", exclude={"teachers": True, "judge_teachers": True, "checks": {"folder"}})
    values["judges"] = {name: _published_judge(judge) for name, judge in config.judges.items()}
    values["prompts"]["source"] = Path(config.prompts.source).name
    values["prompts"]["files"] = {part: name_of(place) for part, place in config.prompts.files.items()}
    values["training"]["recipe"] = Path(config.training.recipe).name
    return dict(public_values(values))


def _teacher(teacher: Teacher) -> dict[str, Any]:
    """A teacher's settings that affect its answers. Of `extra_body` only field names: a value may identify someone."""
    kept = {"model", "embedded", "transport", "sampling", "reasoning_style", "price"}
    values = teacher.model_dump(mode="json", include=kept)
    return {**values, "extra_fields": sorted(teacher.extra_body), "place": _place(teacher)}


def _place(teacher: Teacher) -> str:
    """Where answers come from: the address of a public service of teachers.yaml, and no other."""
    public = {url for entry in load_teachers().values() for url in entry.urls}
    return "an OpenAI-compatible endpoint" if teacher.urls and not set(teacher.urls) <= public else teacher.place


def _judges(config: RunConfig) -> dict[str, Judge]:
    return {name: config.judges[name] for name in config.judging.judges}


def _published_judge(judge: Judge) -> dict[str, Any]:
    """A judge's settings; of a local one's folder only the name, since its digest says which it is."""
    values = judge.model_dump(mode="json")
    return {**values, "folder": Path(judge.folder).name} if judge.folder else values


def _judging(run: RunFolder, config: RunConfig, stage: dict[str, Any]) -> dict[str, Any]:
    """Who judged, how, and how good they are known to be."""
    judges = {}
    for name, judge in _judges(config).items():
        teacher = config.judge_teachers[judge.teacher] if judge.teacher else None
        asked = {"model": teacher.model, "place": _place(teacher)} if teacher else {"model": None, "place": None}
        judges[name] = {**_published_judge(judge), **asked, "requests": stage["requests"][name]}
    return {
        "judges": judges,
        **{key: stage[key] for key in ("vote", "cost_usd", "disagreement")},
        "cascades": stage.get("cascades") or {},
        "failures": _failures(stage),
        "rubrics": {name: {"text": rubric(name), "sha256": digest} for name, digest in stage["rubrics"].items()},
        "scores": read_scores(run),
        "stress": read_stress(run),
    }


def _failures(stage: dict[str, Any]) -> dict[str, Any]:
    """Rows whose requests failed; older runs do not count those of judges."""
    return dict(stage.get("failures", {"permanent": 0, "reasons": []}))


def _repair(stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """What repair did; the history of other strategies stays with the run."""
    apart = ("finished", "version", "outputs", "by_strategy")
    return stage and {key: value for key, value in stage.items() if key not in apart}


def _flagged(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Released harmful rows with a pattern, by variant."""
    found = db.sql(
        f"""
        SELECT variant, count(*) FROM released JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
        JOIN verdicts USING (response_id) WHERE kind <> 'benign' AND ({" OR ".join(PATTERNS)}) GROUP BY variant
        """  # noqa: S608 - names of ours
    ).fetchall()
    return {str(name): int(rows) for name, rows in found}


def _selection(run: RunFolder, stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """How the rows were drawn from the accepted ones; None where all of them are released."""
    if stage is None or not run.table_path("selected").exists():
        return None
    return {"settings": stage["settings"], "draws": stage["draws"]}


def _sources(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Where the released prompts come from, with the licence that each was given."""
    rows = db.sql(
        """
        SELECT source, source_license, count(DISTINCT prompt_id), count(*)
        FROM released JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
        GROUP BY source, source_license ORDER BY source, source_license
        """
    ).fetchall()
    names = ("source", "license", "prompts", "rows")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _figures(run: RunFolder, db: duckdb.DuckDBPyConnection, stages: dict[str, Any]) -> dict[str, Any]:
    """What the card's plots and tables show: patterns before and after repair, lengths, survival, costs."""
    repaired = run.table_path("repairs").exists() and "repair" in stages
    biases, dependences = survival_counts(db)
    figures = {
        "patterns": patterns_of(stages, repaired, agreement_of(run)),
        "lengths": lengths_of(db),
        "survivorship": {
            "biases": [asdict(item) for item in biases],
            "dependences": [asdict(item) for item in dependences],
        },
        "costs": [
            # The order in which many prices are added up shows in the last digits.
            {**row, "cost": None if row["cost"] is None else round(row["cost"], 6)}
            for row in costs_of(db)
        ],
    }
    return dict(known(figures))


# Which columns name a row of each table that a release is made from.
_INPUTS = {
    "prompts": "prompt_id",
    "responses": "response_id",
    "judgements": "response_id, judge, kind",
    "judged": "response_id",
    "reviews": "response_id, annotator",
    "accepted": "response_id",
    "rejected": "response_id, check_name",
    "selected": "response_id",
}


def _inputs(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Each table that the release was made from: its rows, and a sha256 over theirs (as JSON) in the order of ids.

    The files' own hashes would differ with the order in which rows came in, and with how long each answer took.
    """
    found = {}
    for name, key in _INPUTS.items():
        apart = " EXCLUDE (latency_s)" if name == "responses" else ""
        digest, rows = sha256(), 0
        query = f"SELECT sha256(to_json(t)::VARCHAR) AS row FROM (SELECT *{apart} FROM {name}) t ORDER BY {key}"  # noqa: S608
        for batch in db.sql(query).to_arrow_reader(50_000):
            rows += batch.num_rows
            digest.update("".join(batch["row"].to_pylist()).encode())
        found["verdicts" if name == "judged" else name] = {"rows": rows, "sha256": digest.hexdigest()}
    return found


def _overlap(run: RunFolder, db: duckdb.DuckDBPyConnection, stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """Evaluation items that released rows overlap with, by set; None where the search was not run."""
    if stage is None or not run.table_path("contamination").exists():
        return None
    rows = db.sql(
        """
        SELECT DISTINCT set_name, item_id FROM contamination
        WHERE CASE WHEN coalesce(response_id, '') = ''
            THEN prompt_id IN (SELECT prompt_id FROM released JOIN responses USING (response_id))
            ELSE response_id IN (SELECT response_id FROM released) END
        ORDER BY set_name, item_id
        """
    ).fetchall()
    sizes = {count["set_name"]: count["items"] for count in stage["counts"]}
    return {
        name: {
            "items": sizes[name],
            "sha256": digest,
            "overlapping": [item for set_name, item in rows if set_name == name],
        }
        for name, digest in stage["sets"].items()
    }


def _people(run: RunFolder) -> dict[str, Any] | None:
    """Results of the human review; None where there was none, or where the votes have changed since."""
    found = agreement_of(run)
    return found and {key: value for key, value in found.items() if key not in ("deviation", "coins")}
