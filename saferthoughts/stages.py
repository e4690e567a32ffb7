"""The stages in the order of work, each as: run it on a run folder, get back the lines to tell.

Reads and writes what the stage does. `saferthoughts STAGE RUN` runs one, `saferthoughts run RUN` all that are missing.
Stages are imported when they run: each needs its own extra only.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import Incomplete, UserError, unknown
from pipelines.prompts.stage import PromptsResult, start, start_or_change
from pipelines.runner.options import DEFAULTS, RequestOptions
from pipelines.runs import RunFolder
from pipelines.settings.changes import Consent, change, is_imported, refuse
from pipelines.settings.config import RunConfig, load_config
from pipelines.settings.options import Options

if TYPE_CHECKING:
    from cards.regenerate import Answering
    from curation.selection import SelectionResult
    from pipelines.runner.failures import Failures
    from pipelines.runner.options import Caps


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that was started, and what to tell of it."""

    run: RunFolder
    said: str


def start_run(runs: Path, name: str, options: Options, consent: Consent = refuse) -> Begun:
    """The first stage: a new run, or another configuration and further prompts of one that exists."""
    return _begun(start_or_change(runs, name, options, consent))


def begin_run(runs: Path, name: str, config: RunConfig) -> Begun:
    """The first stage with a configuration that is settled."""
    return _begun(start(runs, name, config))


def _begun(started: PromptsResult) -> Begun:
    config = load_config(started.run)
    dropped = f", {started.duplicates} duplicates in the source dropped" if started.duplicates else ""
    if started.kept or started.gone:
        dropped += f", {started.kept} of them were there before" + (f" and {started.gone} went" if started.gone else "")
    teachers = ", ".join(
        f"{key} ({entry.model}{', rehearsal teacher, not a model' if entry.embedded else ''})"
        for key, entry in config.teachers.items()
    )
    return Begun(
        started.run,
        f"{started.run.path}: {started.harmful} harmful and {started.benign} benign prompts{dropped}; "
        f"variants {', '.join(config.variants)}; teachers {teachers or 'none'}",
    )


def generate_run(run: RunFolder, options: RequestOptions = DEFAULTS) -> str:
    """Ask the teachers.

    Raises:
        Incomplete: rows failed that may be asked again, more of the planned ones are refused for good than may be, or
            the budget is spent; what came back is kept.
    """
    from pipelines.generate.stage import generate

    _require_teacher(run)
    done = generate(run, options)
    cost = f", ${done.cost:.2f} so far" if done.cost else ""
    said = f"{done.kept} of {done.planned} responses, {done.asked} asked for now{cost}"
    where = str(run.table_path("failed"))
    return said + _within(run, "generate", said, done.failures, done.planned, options.max_failed, "left out", where)


def _within(
    run: RunFolder, stage: str, said: str, failures: "Failures", rows: int, max_failed: float, how: str, where: str
) -> str:
    """What to tell of rows whose requests failed, "" where none did.

    Args:
        run: The run.
        stage: The stage.
        said: What it did, for the error.
        failures: The rows that failed.
        rows: All rows of the run, of which `max_failed` is a share.
        max_failed: The most that may be refused for good.
        how: How those end.
        where: Where they are listed.

    Raises:
        Incomplete: some may be asked again, or more are refused for good than may be.
    """
    from pipelines.command_line import typed_command

    if not failures.rows:
        return ""
    again, first = f"saferthoughts {stage} {run.name}", failures.reasons[0][0]
    transient = failures.rows - failures.permanent
    if transient:
        raise Incomplete(
            f"{said}; {failures.rows} failed, see {where} (the first: {first}). Ask "
            f"{'those' if transient == failures.rows else f'{transient} of them'} again: {typed_command(again)}"
        )
    share = failures.permanent / rows
    told = f"; {failures.permanent} of {rows} are refused for good and {how} ({first})"
    if share > max_failed:
        most = f"--max-failed {math.ceil(100 * share)}%"
        raise Incomplete(
            f"{said}{told}: {share:.1%}, more than the {max_failed:.1%} of --max-failed; see {where}. Go on without "
            f"them: {typed_command(again, most)}. After a change at the provider, let them be asked once more: "
            f"saferthoughts ledger forget {run.name}"
        )
    return told


def judge_run(run: RunFolder, options: RequestOptions = DEFAULTS) -> str:
    """Judge every response by the run's judges.

    Raises:
        Incomplete: the budget is spent, a judge that could not be asked may be asked again, or more of the rows are
            refused for good than may be; what came back is kept.
    """
    from pipelines.judges.alone import RULES_ALONE, rules_alone
    from pipelines.judges.stage import judge
    from pipelines.judges.tallies import count_words
    from pipelines.records import PATTERNS
    from pipelines.settings.config import load_config

    done = judge(run, options)
    flags = ", ".join(f"{label} {count_words(done.counts, label)}" for label in (*PATTERNS, "unsafe"))
    cost = f"; ${done.cost:.2f}" if done.cost else ""
    judged = f"{done.responses} responses judged by {', '.join(done.judges)}, {done.unscored} unscored"
    judged += f", {done.fixed} fixed texts not judged" if done.fixed else ""
    if done.without_reasoning:
        judged += f", {done.without_reasoning} without reasoning: patterns not applicable"
    where = f"reason in {run.table_path('judgements')}"
    judged += _within(run, "judge", judged, done.failures, done.responses, options.max_failed, "unscored", where)
    note = f"\n{RULES_ALONE}" if rules_alone(load_config(run)) else ""
    return f"{judged}; {flags}{cost}{note}"


def repair_run(run: RunFolder, options: RequestOptions = DEFAULTS) -> str:
    """Ask again for flagged rows.

    Raises:
        Incomplete: the budget is spent, a request failed that may be repeated, or the repair of more of the run's rows
            is refused for good than may be; what came back is kept.
    """
    from pipelines.repairs.stage import repair

    _require_teacher(run)
    done = repair(run, options)
    cost = "" if done.cost is None else f", ${done.cost:.2f}"
    lines = [
        f"{done.mended} of {done.flagged} flagged rows mended ({done.strategy}), {done.requests} further answers, "
        f"{done.output_tokens} tokens{cost}; without a fault: {done.kept.filter} of {done.kept.rows} rows as "
        f"generated, {done.kept.repair} after repair"
    ]
    where = f"saferthoughts ledger show {run.name}"
    lines[0] += _within(
        run, "repair", lines[0], done.failures, done.kept.rows, options.max_failed, "left as they were", where
    )
    if done.without_reasoning:
        lines.append(
            f"  {done.without_reasoning} flagged rows are left as they are: their teacher shows no reasoning, and "
            "asking it the same again would show none"
        )
    lines += [
        f"  {fault.pattern}: {fault.flagged} flagged, mended "
        + ", ".join(f"{count} at attempt {number}" for number, count in enumerate(fault.mended, 1))
        + f", {fault.left} left"
        for fault in done.by_pattern
    ]
    return "\n".join(lines)


def _require_teacher(run: RunFolder) -> None:
    """Refuse to ask for responses of a run whose responses somebody else's model made.

    Raises:
        UserError: its responses were imported.
    """
    if is_imported(run):
        raise UserError(
            f"{run.path} holds an imported dataset: its responses come from no teacher of this run, so there is none "
            f"to ask. Judge and check it (saferthoughts judge {run.name}), or have its prompts answered in a new run: "
            "saferthoughts prompts NEW --prompts FILE --teacher NAME"
        )


def check_run(run: RunFolder) -> str:
    """Run the checks."""
    from curation.quality.checks import check

    done = check(run)
    lines = [f"{done.accepted} of {done.rows} rows accepted, {done.rows - done.accepted} rejected"]
    lines += [f"  {name}: {reason}: {count}" for (name, reason), count in done.by_reason.items()]
    if done.superseded:
        lines.append(f"  beside them {done.superseded} attempts of repair at rows of which another is kept")
    return "\n".join(lines)


def duplicates_run(run: RunFolder) -> str:
    """Find near-duplicates."""
    from curation.overlap.duplicates import find_duplicates

    lines = []
    for found in find_duplicates(run):
        what = "requests" if found.of == "prompt" else f"responses of {found.of}"
        lines.append(f"{found.items} {what}: {found.redundant} nearly repeat one of {found.clusters} others")
    return "\n".join(lines)


def contamination_run(run: RunFolder, against: Iterable[str]) -> str:
    """Find overlaps with evaluation sets."""
    from curation.overlap.contamination import find_contamination

    lines = []
    for found in find_contamination(run, list(against)):
        how = ", ".join(f"{method} {count}" for method, count in found.by_method.items())
        lines.append(
            f"{found.set_name}: {found.items_hit} of {found.items} items overlap, with {found.prompts_hit} prompts and "
            f"{found.responses_hit} responses{f' ({how})' if how else ''}"
        )
    return "\n".join(lines)


def select_run(
    run: RunFolder,
    harmful: int | None = None,
    benign: int | None = None,
    variants: tuple[str, ...] = (),
    paired: bool | None = None,
) -> "SelectionResult":
    """Draw the rows to release, by other numbers than the run's where some are given; these then are the run's."""
    from curation.selection import select

    given = {"harmful": harmful, "benign": benign, "variants": list(variants) or None, "paired": paired}
    change(run, Options(also={f"selection.{key}": value for key, value in given.items() if value is not None}))
    return select(run)


def release_run(
    run: RunFolder, since: Path | None = None, version: str | None = None, license_id: str | None = None
) -> str:
    """Build the release, as the version that follows an earlier one where that is given, under a licence that then is
    the run's."""
    from cards.release import build_release

    if license_id is not None:
        change(run, Options(also={"release.license": license_id}), lambda change: None)
    done = build_release(run, since, version, license=license_id)
    rows = ", ".join(f"{name} {count}" for name, count in done.rows.items())
    return f"{done.folder}: {rows}"


def regenerate_run(
    runs: Path, folder: Path, name: str, who: "Answering", agree: Callable[[str], None] | None = None
) -> str:
    """Start a run from a release, with another teacher.

    Raises:
        UserError: a teacher or judge that is not known, or what will be asked is not agreed to.
    """
    from cards.regenerate import regenerate

    done = regenerate(folder, runs, name, who, agree)
    answering = ", ".join(f"{entry} ({model})" for entry, model in done.teachers.items())
    return (
        f"{done.run.path}: {done.harmful} harmful and {done.benign} benign prompts as in {folder}; "
        f"teachers {answering}\n"
        f"Go on: saferthoughts run {name}"
    )


STAGES: dict[str, Callable[[RunFolder], str]] = {
    "generate": generate_run,
    "judge": judge_run,
    "repair": repair_run,
    "check": check_run,
    "release": release_run,
}


def run_stage(stage: str, run: RunFolder) -> str:
    """Run one stage on a run that exists and return what to tell of it.

    Raises:
        UserError: no such stage, or one of the stage's own.
        Incomplete: some rows finally failed; what came back is kept.
    """
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    return STAGES[stage](run)


def _check_all(run: RunFolder, until: str, caps: "Caps") -> None:
    """Refuse before the first stage what would stop a later one: a judge without its key, or without prices to cap."""
    from pipelines.judges.stage import judge_teachers
    from pipelines.runner.session import check_teachers

    config = load_config(run)
    teachers = {} if is_imported(run) else config.teachers
    judges = {} if until == "generate" else judge_teachers(config)
    check_teachers({**teachers, **judges}, caps)


def run_all(
    runs: Path,
    name: str,
    options: Options,
    until: str,
    tell: Callable[[str], None],
    asking: RequestOptions = DEFAULTS,
    consent: Consent = refuse,
) -> RunFolder:
    """Start the run where it is new or options are given, then every stage up to `until`, within a budget.

    Raises:
        UserError: no such stage, or one of a stage's own.
    """
    if until not in STAGES:
        raise unknown("stage", until, STAGES)
    if options.given() or not (runs / name / "run.yaml").exists():
        begun = start_run(runs, name, options, consent)
        run = begun.run
        tell(f"prompts: {begun.said}")
    else:
        run = RunFolder.open(runs, name)
    _check_all(run, until, asking.caps)
    for stage in STAGES:
        if stage in ("generate", "repair") and is_imported(run):
            said = "nobody to ask, the responses were imported"
        elif stage == "generate":
            said = generate_run(run, asking)
        elif stage == "judge":
            said = judge_run(run, asking)
        elif stage == "repair":
            said = repair_run(run, asking)
        else:
            said = run_stage(stage, run)
        tell(f"{stage}: {said}")
        if stage == until:
            break
    return run
