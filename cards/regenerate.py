"""A release's recipe with another teacher: the same prompts, variants and settings as a new run.

Reads a release folder (lineage.json, prompts.parquet); writes a run folder with run.yaml and prompts.parquet, on which
`saferthoughts run RUN` does the rest. Run it with `saferthoughts regenerate FOLDER RUN --teacher NAME`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cards.verify import lineage_in, prompts_fit, read_prompts, shaped_like_ours
from pipelines.config import RunConfig, Teacher, load_teachers, paired_with, save_config, validated
from pipelines.errors import UserError, unknown
from pipelines.options import name_of
from pipelines.records import Prompt, from_table, to_table
from pipelines.resolving import resolve
from pipelines.runs import RunFolder, file_hash


@dataclass(frozen=True, slots=True)
class Regenerated:
    """The new run, its prompts, and who answers now."""

    run: RunFolder
    harmful: int
    benign: int
    teachers: dict[str, str]


def regenerate(
    folder: Path,
    runs: Path,
    name: str,
    teacher: str | Teacher,
    general: str | None = None,
    teachers: Path | None = None,
    called: str | None = None,
) -> Regenerated:
    """Make the new run.

    Args:
        folder: The release.
        runs: Folder of the runs.
        name: The new run's name; a run that is there already is left alone.
        teacher: Who answers now: a name of teachers.yaml, or an entry of one's own.
        general: Who answers the variants of a general model, the same one if not given.
        teachers: A user's teachers.yaml.
        called: The name of an entry of one's own; it follows from the model if not given.

    Raises:
        UserError: no release of ours is there, an unknown teacher, or a run of that name.
    """
    lineage = lineage_in(folder)
    if "config" not in lineage:
        raise UserError(
            f"{folder} was made by a version whose lineage does not hold its settings. Start anew: prompts."
        )
    prompts = _prompts(folder, lineage)
    known = load_teachers(teachers)
    values: dict[str, Any] = {**lineage["config"], "teachers": {}}
    if isinstance(teacher, Teacher):
        entry, teacher = teacher, called or name_of(teacher.model, (), known)
        known[teacher] = entry
    for one in (teacher, general or teacher):
        if one not in known:
            raise unknown("teacher", one, known)
    values["roles"] = {"reasoning": teacher, "general": general or paired_with(teacher)}
    # What depended on the old rows does not hold for the new ones.
    with shaped_like_ours(folder):
        values["release"] = {**values["release"], "version": "1.0.0"}
    config = resolve(validated(RunConfig, values, f"{folder}/lineage.json"), known)
    if (runs / name / "manifest.json").exists():
        raise UserError(f"There is a run '{name}' under {runs} already. Give the new one another name.")
    run = RunFolder.create(runs, name)
    save_config(run, config)
    run.write("prompts", to_table(Prompt, prompts))
    harmful = sum(prompt.kind == "harmful" for prompt in prompts)
    apart = ("harmful", "benign")
    run.record(
        "prompts",
        outputs={"prompts.parquet": file_hash(run.table_path("prompts"))},
        pool={key: value for key, value in lineage["prompts"].items() if key not in apart},
        counts={"harmful": harmful, "benign": len(prompts) - harmful},
        regenerated_from={"run_id": lineage["run_id"], "version": lineage["version"], "title": lineage["title"]},
    )
    who = {entry: config.teachers[entry].model for entry in config.teachers}
    return Regenerated(run, harmful, len(prompts) - harmful, who)


def _prompts(folder: Path, lineage: dict[str, Any]) -> list[Prompt]:
    path = folder / "prompts.parquet"
    try:
        prompts = read_prompts(path)
    except (OSError, ValueError, pa.ArrowException, KeyError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not prompts_fit(prompts, lineage):
        raise UserError(
            f"{path} does not hold the prompts of this release. Check it: saferthoughts release verify {folder}"
        )
    return from_table(Prompt, prompts)
