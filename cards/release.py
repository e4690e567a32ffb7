"""Accepted rows to a release folder.

Reads a run's tables; writes, all at once or not at all,

    release/
      README.md           the card
      data/<config>/train-00000-of-00001.parquet
      prompts.parquet     all prompts of the run, for `saferthoughts regenerate`
      lineage.json        teachers, settings, instructions, rubrics, hashes, counts
      CHANGELOG.md        what differs from the release before
      LICENSE
      checksums.sha256

Run it with `saferthoughts release build RUN`; read it with `datasets.load_dataset("runs/RUN/release", "improved")`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards.card import dataset_card
from cards.compare import check_version, compare, lines_of, proposed
from cards.provenance import packages, source_state
from cards.rows import (
    METADATA,
    PUBLIC,
    accepted_rows,
    config_of,
    configs_of,
    content_hash,
    metadata_row,
    public_row,
    write_config,
    write_prompts,
)
from curation.review.gate import agreement_of, check_gate
from pipelines.config import Judge, Release, RunConfig, load_config, validated
from pipelines.errors import UserError
from pipelines.judges.patterns import rubric
from pipelines.judges.scoring import read_scores
from pipelines.records import content_id
from pipelines.runs import VERSION, RunFolder, atomic_folder, file_hash, write_json, write_text


@dataclass(frozen=True, slots=True)
class Released:
    """Where the release is, and how many rows each configuration has."""

    folder: Path
    rows: dict[str, int]


def build_release(run: RunFolder, since: Path | None = None, version: str | None = None) -> Released:
    """Build the run's release folder.

    Args:
        run: A run that is checked.
        since: The release before this one: it gives the changelog, and the version where none is wanted.
        version: The version wanted; the run's own if neither is given.

    Raises:
        UserError: a table is missing, no row was accepted, people's review does not meet what the run requires, or the
            version understates what differs from the release before.
    """
    config = load_config(run)
    if version is not None:
        release = validated(Release, {**config.release.model_dump(), "version": version}, "the options")
        config = config.model_copy(update={"release": release})
    check_gate(run)
    rows = accepted_rows(run)
    if not rows:
        raise UserError(
            f"{run.path} has no accepted rows to release. Look at the reasons: saferthoughts check {run.name}"
        )
    run_id = content_id(config.model_dump(mode="json"))
    by_config: dict[str, list[dict[str, Any]]] = {name: [] for name in configs_of(config)}
    for row in rows:
        by_config[config_of(row)].append(row)
    filled = {name: part for name, part in by_config.items() if part}
    folder = run.path / "release"
    with atomic_folder(folder) as temporary:
        content = {
            name: content_hash(write_config(temporary, name, [public_row(row, run_id) for row in part], PUBLIC))
            for name, part in filled.items()
        }
        metadata = write_config(temporary, "metadata", [metadata_row(row) for row in rows], METADATA)
        content["metadata"] = content_hash(metadata)
        write_prompts(temporary / "prompts.parquet", run)
        write_text(temporary / "LICENSE", license_text(config.release.license))
        counts = {name: len(part) for name, part in by_config.items()}
        lineage = {**lineage_of(run, config, run_id, counts), "content": content}
        write_json(temporary / "lineage.json", lineage)
        lineage, changelog = _versioned(temporary, lineage, since, version)
        write_json(temporary / "lineage.json", lineage)
        write_text(temporary / "CHANGELOG.md", changelog)
        write_text(temporary / "README.md", dataset_card(lineage))
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        sums = "".join(f"{file_hash(path)}  {path.relative_to(temporary).as_posix()}\n" for path in files)
        write_text(temporary / "checksums.sha256", sums)
    counts = {name: len(part) for name, part in filled.items()}
    run.record("release", rows=counts, checksums=file_hash(folder / "checksums.sha256"))
    return Released(folder, counts)


def _versioned(
    folder: Path, lineage: dict[str, Any], since: Path | None, version: str | None
) -> tuple[dict[str, Any], str]:
    """The lineage with its version, and the changelog, by what differs from the release before."""
    heading = "# Changelog\n"
    if since is None:
        return lineage, f"{heading}\n## {lineage['version']}\n\n- First release.\n"
    compared = compare(since, folder)
    lineage["version"] = version or proposed(compared.versions[0], compared.step)
    check_version(compared, lineage["version"])
    earlier = since / "CHANGELOG.md"
    older = earlier.read_text(encoding="utf-8").removeprefix(heading) if earlier.exists() else ""
    lines = lines_of(compared) or ["Nothing differs in the rows."]
    told = "".join(f"- {line}\n" for line in lines)
    return lineage, f"{heading}\n## {lineage['version']}\n\n{told}{older}"


def license_text(name: str) -> str:
    """The text of the release's licence, or where to find it: only our own is here."""
    if name == "apache-2.0":
        return (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8")
    return f"This dataset is licensed under {name}. Its text: https://spdx.org/licenses/\n"


def lineage_of(run: RunFolder, config: RunConfig, run_id: str, rows: dict[str, int]) -> dict[str, Any]:
    """How the release came to be, from the run's configuration, manifest and judge scores.

    Holds no times and no paths, so that the same inputs give the same release.
    """
    stages = run.manifest()["stages"]
    pool = stages["prompts"]["pool"]
    return {
        "version": config.release.version,
        "title": config.release.title,
        "license": config.release.license,
        "run_id": run_id,
        "saferthoughts": VERSION,
        "seed": config.seed,
        "rehearsal": any(teacher.embedded for teacher in config.teachers.values()),
        "rehearsal_judges": [
            name
            for name, judge in _judges(config).items()
            if judge.teacher and config.judge_teachers[judge.teacher].embedded
        ],
        "prompts": {**pool, **stages["prompts"]["counts"]},
        "teachers": {
            name: {**teacher.model_dump(mode="json"), "place": teacher.place}
            for name, teacher in config.teachers.items()
        },
        "variants": {
            name: {
                "teacher": config.teacher_of(name),
                "description": config.variant(name).description,
                "instruction": config.variant(name).instruction,
                "instruction_sha256": config.variant(name).instruction_hash(),
            }
            for name in config.variants
        },
        "benign_variant": config.benign_variant,
        "judging": _judging(run, config, stages["judge"]),
        "repair": _repair(stages.get("repair") if run.table_path("repairs").exists() else None),
        "queries": stages["check"]["queries"],
        "counts": {
            "generate": {key: stages["generate"]["counts"][key] for key in ("planned", "kept", "failed")},
            "judge": stages["judge"]["counts"],
            "check": stages["check"]["counts"],
        },
        "reasons": stages["check"]["reasons"],
        "selection": _selection(run, stages.get("select")),
        "people": _people(run),
        "overlap": _overlap(run, stages.get("contamination")),
        "funnel": stages["judge"]["by_variant"],
        "rows": rows,
        "prompt_ids": content_id(*run.read("prompts")["prompt_id"].to_pylist()),
        "config": config.model_dump(mode="json"),
        "packages": packages(),
        "source": source_state(),
    }


def _judges(config: RunConfig) -> dict[str, Judge]:
    return {name: config.judges[name] for name in config.judging.judges}


def _judging(run: RunFolder, config: RunConfig, stage: dict[str, Any]) -> dict[str, Any]:
    """Who judged, how, and how good they are known to be."""
    judges = {}
    for name, judge in _judges(config).items():
        teacher = config.judge_teachers[judge.teacher] if judge.teacher else None
        asked = {"model": teacher.model, "place": teacher.place} if teacher else {"model": None, "place": None}
        judges[name] = {**judge.model_dump(mode="json"), **asked, "requests": stage["requests"][name]}
    return {
        "judges": judges,
        **{key: stage[key] for key in ("vote", "cost_usd", "disagreement")},
        "rubrics": {name: {"text": rubric(name), "sha256": digest} for name, digest in stage["rubrics"].items()},
        "scores": read_scores(run),
    }


def _repair(stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """What repair did; the history of other strategies stays with the run."""
    apart = ("finished", "version", "outputs", "by_strategy")
    return stage and {key: value for key, value in stage.items() if key not in apart}


def _selection(run: RunFolder, stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """How the rows were drawn from the accepted ones; None where all of them are released."""
    if stage is None or not run.table_path("selected").exists():
        return None
    return {"settings": stage["settings"], "draws": stage["draws"]}


def _overlap(run: RunFolder, stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """The items of evaluation sets that released rows overlap with, by set; None where nobody looked."""
    if stage is None or not run.table_path("contamination").exists():
        return None
    released = {row["response_id"]: row["prompt_id"] for row in accepted_rows(run)}
    prompts = set(released.values())
    items: dict[str, set[str]] = {name: set() for name in stage["sets"]}
    for row in run.read("contamination").to_pylist():
        if row["prompt_id"] in prompts if not row["response_id"] else row["response_id"] in released:
            items[row["set_name"]].add(row["item_id"])
    sizes = {count["set_name"]: count["items"] for count in stage["counts"]}
    return {
        name: {"items": sizes[name], "sha256": stage["sets"][name], "overlapping": sorted(found)}
        for name, found in items.items()
    }


def _people(run: RunFolder) -> dict[str, Any] | None:
    """What people's review showed; None where nobody looked, or the figures are of other votes than there are now."""
    found = agreement_of(run)
    return found and {key: value for key, value in found.items() if key != "deviation"}
