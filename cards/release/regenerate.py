"""A release's recipe with another teacher: the same prompts, variants and settings as a new run.

Reads a release folder (lineage.json, its prompts); writes a run folder with run.yaml and prompts.parquet, on which
`saferthoughts run RUN` does the rest. Run it with `saferthoughts regenerate FOLDER RUN --teacher NAME`.

A release gives texts and choices: prompts, variants, instructions, the judges' names and rubrics, thresholds, seeds.
Who is asked, with which key, which servers are started and which folders are read comes from the user alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from cards.release.preview import preview
from cards.release_folder import lineage_now
from cards.rows.prompts_file import prompts_file, prompts_fit, read_prompts
from cards.verify import shaped_like_ours
from pipelines.errors import UserError, unknown
from pipelines.prompts.variant import load_variants
from pipelines.records import Prompt, from_table, to_table
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import RunConfig, paired_with, save_config
from pipelines.settings.judge import Judge, load_judges
from pipelines.settings.options import name_of
from pipelines.settings.parts import validated
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import Teacher, load_teachers

_FOR_OBJECTIVES = ("configs", "length_ratio", "reasoning_key")
# Of a release's settings, those that are texts and choices, whole ...
_TAKEN = ("seed", "variants", "benign_variant", "samples", "judging", "repair", "selection")
# ... and those of which parts act: a source and a folder are paths, a repository is the publisher's.
_PARTS = {
    "prompts": ("harmful", "benign", "bare_share", "kind"),
    "checks": (
        *(
            "only",
            "flagged",
            "patterns",
            "variants",
            "loop_times",
            "copied_share",
            "same_text_prompts",
            "near_duplicate_similarity",
        ),
        *("near_duplicates", "contaminated_by"),
    ),
    "release": ("requires", "title", "license", "license_text", "language", "gating", *_FOR_OBJECTIVES),
}


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answers now, all of it the user's: a teacher's name or entry, who answers for a general model, the user's
    teachers.yaml, what an entry of one's own is called, and which entry each judge asks."""

    teacher: str | Teacher
    general: str | None = None
    teachers: Path | None = None
    called: str | None = None
    judges: Mapping[str, str] = field(default_factory=dict)


def regenerate(
    folder: Path, runs: Path, name: str, who: Answering, agree: Callable[[str], None] | None = None
) -> RunFolder:
    """Make the new run.

    Args:
        name: The new run's name; a run that is there already is left alone.
        agree: Is given what will be asked of whom, before anything is written; raises where that is not wanted.

    Raises:
        UserError: no release of ours is there, an unknown teacher, a judge without one, or a run of that name.
    """
    lineage = lineage_now(folder)
    if "config" not in lineage:
        raise UserError(
            f"{folder} was made by a version whose lineage does not hold its settings. Start anew: prompts."
        )
    prompts = _prompts(folder, lineage)
    config = _config(folder, lineage, who)
    if (runs / name / "manifest.json").exists():
        raise UserError(f"There is a run '{name}' under {runs} already. Give the new one another name.")
    harmful = sum(prompt.kind == "harmful" for prompt in prompts)
    if agree is not None:
        agree(preview(folder, lineage, config, harmful, len(prompts) - harmful))
    run = RunFolder.create(runs, name)
    save_config(run, config)
    run.write("prompts", to_table(Prompt, prompts))
    apart = ("harmful", "benign")
    run.record(
        "prompts",
        outputs={"prompts.parquet": file_hash(run.table_path("prompts"))},
        pool={key: value for key, value in lineage["prompts"].items() if key not in apart},
        counts={"harmful": harmful, "benign": len(prompts) - harmful},
        regenerated_from={"run_id": lineage["run_id"], "version": lineage["version"], "title": lineage["title"]},
    )
    return run


def _config(folder: Path, lineage: dict[str, Any], who: Answering) -> RunConfig:
    known = load_teachers(who.teachers)
    teacher = who.teacher
    if isinstance(teacher, Teacher):
        entry, teacher = teacher, who.called or name_of(teacher.model, (), known)
        known[teacher] = entry
    general = who.general or paired_with(teacher) or teacher
    for one in (teacher, general):
        if one not in known:
            raise unknown("teacher", one, known)
    with shaped_like_ours(folder):
        theirs = dict(lineage["config"])
        values: dict[str, Any] = {key: theirs[key] for key in _TAKEN if key in theirs}
        for key, names in _PARTS.items():
            values[key] = {name: value for name, value in dict(theirs.get(key, {})).items() if name in names}
        values["instructions"] = _instructions(theirs, lineage)
        values["judges"] = _judges(folder, theirs, known, who.judges)
    values["roles"] = {"reasoning": teacher, "general": general}
    return resolve(validated(RunConfig, values, f"{folder}/lineage.json"), known)


def _instructions(theirs: dict[str, Any], lineage: dict[str, Any]) -> dict[str, str]:
    """Each variant's instruction in the release, where it differs from ours."""
    shipped = load_variants()
    worded = {
        **{name: str(text) for name, text in dict(theirs.get("instructions", {})).items()},
        **{name: str(entry["instruction"]) for name, entry in lineage["variants"].items()},
    }
    return {
        name: text
        for name, text in worded.items()
        if text and name in shipped and shipped[name].teacher != "none" and text != shipped[name].instruction
    }


def _judges(
    folder: Path, theirs: dict[str, Any], known: Mapping[str, Teacher], given: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The release's judges, each asking an entry of the user's: the one that was named, or our own judge's."""
    names = [str(name) for name in theirs["judging"]["judges"]]
    for name in given:
        if name not in names:
            raise unknown(f"judge of {folder} (--judge-teacher)", name, names)
    shipped = load_judges()
    judges: dict[str, dict[str, Any]] = {}
    for name in names:
        entry = theirs["judges"][name] if name in theirs["judges"] else shipped[name].model_dump(mode="json")
        # Whom the release's own entry asked does not count.
        alone = entry["kind"] in ("rules", "local")
        # A local judge's folder is on its maker's machine: of a cascade the model judges all.
        apart = validated(
            Judge,
            {**entry, "teacher": None} if alone else {**entry, "teacher": "nobody", "folder": None, "digest": None},
            f"judge '{name}'",
        )
        values = apart.model_dump(mode="json")
        if not alone:
            own = shipped[name].teacher if name in shipped else None
            asked = given.get(name, own)
            if asked is None:
                raise UserError(
                    f"{folder} was judged by '{name}', which is none of yours, so nobody is asked in its name. Say who "
                    f"judges: --judge-teacher {name}=ENTRY (see: saferthoughts teachers list)"
                )
            if asked not in known:
                raise unknown(f"teacher of judge '{name}'", asked, known)
            values["teacher"] = asked
        elif name in given:
            raise UserError(f"Judge '{name}' follows rules and asks nobody; leave out --judge-teacher {name}=...")
        judges[name] = values
    return judges


def _prompts(folder: Path, lineage: dict[str, Any]) -> list[Prompt]:
    path = prompts_file(folder)
    try:
        prompts = read_prompts(path)
    except (OSError, ValueError, pa.ArrowException, KeyError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not prompts_fit(prompts, lineage):
        raise UserError(
            f"{path} does not hold the prompts of this release. Check it: saferthoughts release verify {folder}"
        )
    return from_table(Prompt, prompts)
