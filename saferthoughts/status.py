"""Where runs stand: what each has so far, what it waits for, what it took, and the command that goes on.

Reads manifests, run.yaml, release/lineage.json and ledgers; writes nothing and takes no lock.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from curation.review.gate import gate_gaps
from pipelines.errors import one_line, refusal_of
from pipelines.runs import RunFolder
from pipelines.settings.changes import is_imported
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.ledger import Ledger
from saferthoughts.refusals import AskingStage
from saferthoughts.settings import StoredPath, runs_folder

_LONGEST_PROBLEM = 200


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of a run's rows.

    Attributes:
        name: What is counted.
        count: How many there are; None where the stage has not run.
        of: Of how many; None where that has no meaning.
    """

    name: str
    count: int | None
    of: int | None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        name: The run's name.
        created: When it was started, as ISO 8601 has it; None where its files cannot be read.
        stage: The stage that ended last.
        at_work: The stages at which a process makes requests for it now; None where the system cannot tell.
        funnel: From prompts to released rows.
        waits_for: What comes next, in words; "" where nothing is missing.
        command: The command that goes on; None where nothing is missing, or its files must be mended first.
        answers: How many answers the ledger holds.
        input_tokens: What they took.
        output_tokens: What they gave.
        cost: US dollars; None where no teacher or judge has a price.
        problem: Why its files cannot be read; "" where they can.
    """

    name: str
    created: str | None = None
    stage: str | None = None
    at_work: tuple[str, ...] | None = None
    funnel: tuple[FunnelStep, ...] = ()
    waits_for: str = ""
    command: str | None = None
    answers: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    problem: str = ""


def status(name: str | None = None, *, runs: StoredPath | None = None) -> list[RunStatus]:
    """Where runs stand, the newest first; one with broken files says why.

    Args:
        name: One run; all of the folder if not given.
        runs: The folder of run folders: that of SAFERTHOUGHTS_RUNS, or runs/ here, if not given.

    Raises:
        UserError: there is no run of that name.
    """
    folder = runs_folder(runs)
    if name is not None:
        return [_of(RunFolder.open(folder, name))]
    found = []
    for manifest in folder.glob("*/manifest.json"):
        try:
            found.append(_of(RunFolder(manifest.parent)))
        except Exception as error:
            problem = refusal_of(error)
            if problem is None:
                raise
            found.append(RunStatus(manifest.parent.name, problem=one_line(problem, _LONGEST_PROBLEM)))
    return sorted(found, key=lambda one: one.created or "", reverse=True)


def funnel_of(stages: Mapping[str, Any]) -> tuple[FunnelStep, ...]:
    """From prompts to released rows, by what each stage counted in the manifest."""
    prompts = stages.get("prompts", {}).get("counts")
    generated = stages.get("generate", {}).get("counts")
    judged = stages.get("judge", {}).get("counts")
    checked = stages.get("check", {}).get("counts")
    released = stages.get("release", {}).get("rows")
    # Of rows without reasoning only the safety is judged, where somebody is asked for it.
    unasked = judged.get("without_reasoning", 0) if judged and stages["judge"].get("unsafe") is None else 0
    # Repair's attempts count with their row.
    of_checked = checked and checked["responses"] - checked.get("superseded", 0)
    return (
        FunnelStep("prompts", sum(prompts.values()) if prompts else None, None),
        FunnelStep("responses", generated and generated["kept"], generated and generated["planned"]),
        FunnelStep(
            "judged, repairs too",
            judged and judged["responses"] - judged["unscored"] - judged["fixed"] - unasked,
            judged and judged["responses"] - judged["fixed"],
        ),
        FunnelStep("accepted", checked and checked["accepted"], of_checked),
        FunnelStep("released", sum(released.values()) if released else None, checked and checked["accepted"]),
    )


def _of(run: RunFolder) -> RunStatus:
    manifest, config = run.manifest(), load_config(run)
    stages: dict[str, Any] = manifest["stages"]
    totals = None
    if (run.path / "ledger.sqlite").exists():
        with Ledger.reading(run.path / "ledger.sqlite") as ledger:
            totals = ledger.totals()
    priced = any(entry.price for entry in (*config.teachers.values(), *config.judge_teachers.values()))
    waits_for, command = next_step(run, config, stages)
    return RunStatus(
        name=run.name,
        created=manifest["created"],
        stage=max(stages, key=lambda stage: stages[stage]["finished"], default=None),
        at_work=_at_work(run.path),
        funnel=funnel_of(stages),
        waits_for=waits_for,
        command=command,
        answers=totals.answers if totals else None,
        input_tokens=totals.input_tokens if totals else None,
        output_tokens=totals.output_tokens if totals else None,
        cost=totals.cost if totals and (totals.cost or priced) else None,
    )


def next_step(run: RunFolder, config: RunConfig, stages: Mapping[str, Any]) -> tuple[str, str | None]:
    """What a run waits for, "" where nothing is missing, and the command for it."""
    name = shlex.quote(run.name)
    imported = is_imported(run)
    finished = {stage: str(entry["finished"]) for stage, entry in stages.items()}
    generated = stages.get("generate", stages.get("import", {})).get("counts")
    if not imported and (generated is None or generated["kept"] < generated["planned"]):
        missing = "responses" if generated is None else f"{generated['planned'] - generated['kept']} responses"
        return missing, f"saferthoughts run {name}"
    if "judge" not in stages or (unscored := stages["judge"]["counts"]["unscored"]):
        return ("verdicts" if "judge" not in stages else f"verdicts on {unscored} rows"), f"saferthoughts run {name}"
    if "repair" not in stages and config.repair.attempts and (not imported or config.teachers):
        return "repair of flagged rows", f"saferthoughts run {name}"
    if finished.get("check", "") < finished["judge"]:
        return "its checks", f"saferthoughts run {name}"
    if not stages["check"]["counts"]["accepted"]:
        return "rows that pass its checks, of which there is none", f'saferthoughts sql {name} "FROM rejected"'
    if "review" in stages and not run.table_path("reviews").exists():
        return "people's votes", f"saferthoughts review pull {name}"
    if "select" in finished and finished["select"] < finished["check"]:
        return "its selection", f"saferthoughts select {name}"
    if waits_for_review(run, finished):
        after = {"review": "review pull", "pull": "review agree", "agree": "review apply", "apply": "review push"}
        last = max(("", *(stage for stage in after if stage in finished)), key=lambda stage: finished.get(stage, ""))
        return "people's review (release.requires)", f"saferthoughts {after.get(last, 'review push')} {name}"
    if not _released(finished):
        return "its release", f"saferthoughts release build {name}"
    return "", None


def waits_for_review(run: RunFolder, finished: Mapping[str, str]) -> list[str]:
    """What `release.requires` asks of people's review and a run lacks that has all but its release; else nothing.

    Args:
        run: The run.
        finished: When each stage last ended.
    """
    return gate_gaps(run) if "check" in finished and not _released(finished) else []


def _released(finished: Mapping[str, str]) -> bool:
    return finished.get("release", "") >= max(finished["check"], finished.get("select", ""))


def _at_work(folder: Path) -> tuple[str, ...] | None:
    """The stages of `pipelines.runner.session.at_work` whose lock a process holds, by the system's own list of locks:
    to try a lock is to hold it for a moment, in which a stage that begins would be refused."""
    try:
        held = {line.split()[-3].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines()}
        return tuple(stage for stage in get_args(AskingStage) if _inode(folder / f".{stage}.lock") in held)
    except (OSError, IndexError):
        return None


def _inode(path: Path) -> str | None:
    try:
        return str(path.stat().st_ino)
    except FileNotFoundError:
        return None
