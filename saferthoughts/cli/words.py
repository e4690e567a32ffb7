"""What the command line prints of a result: `words_of(result)`, and of an `Incomplete` that has one.

Reads what a result names of its run; writes nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.errors import Incomplete, refusal_of
from saferthoughts.refusals import AskingStage, refused_words

if TYPE_CHECKING:
    from cards.hub.publish import PublishingResult
    from cards.hub.pull import PulledRelease
    from cards.hub.push import Difference
    from cards.hub.push_model import PushedModel
    from curation.overlap.contamination import Overlap
    from curation.overlap.duplicates import Duplicates
    from curation.quality.checks import CheckResult
    from pipelines.generate.stage import GenerationResult
    from pipelines.judges.stage import JudgingResult, Saving
    from pipelines.prompts.stage import PromptsResult
    from pipelines.repairs.accounting import RepairResult
    from pipelines.runner.failures import Failures
    from saferthoughts.release import Release
    from training.student_nll import NllResult


def words_of(result: object) -> str:
    """A result in words, one line or several."""
    return _WORDS[type(result).__name__](result)


def message_of(error: BaseException) -> str | None:
    """An error's line, after what the stage did where rows are missing; None where it is a fault of ours."""
    message = refusal_of(error)
    if isinstance(error, Incomplete) and (summary := _SUMMARIES.get(type(error.result).__name__)) is not None:
        return f"{summary(error.result)}; {message}"
    return message


def stage_words(stage: str, result: object) -> str:
    """A stage of `run`, which has nobody to ask where its result is None."""
    return f"{stage}: {'nobody to ask, the responses were imported' if result is None else words_of(result)}"


def _prompts(result: "PromptsResult") -> str:
    from pipelines.settings.config import load_config

    config = load_config(result.run)
    dropped = f", {result.duplicates} duplicates in the source dropped" if result.duplicates else ""
    if result.kept or result.gone:
        gone = f" and {result.gone} went" if result.gone else ""
        dropped += f", {result.kept} of them were there before{gone}"
    if result.unread:
        dropped += f", columns not read: {', '.join(result.unread)}"
    teachers = ", ".join(
        f"{key} ({entry.model}{', rehearsal teacher, not a model' if entry.embedded else ''})"
        for key, entry in config.teachers.items()
    )
    return (
        f"{result.run.path}: {result.harmful} harmful and {result.benign} benign prompts{dropped}; "
        f"variants {', '.join(config.variants)}; teachers {teachers or 'none'}"
    )


def _generation_summary(result: "GenerationResult") -> str:
    cost = f", ${result.cost:.2f} so far" if result.cost else ""
    return f"{result.kept} of {result.planned} responses, {result.asked} asked for now{cost}"


def _generation(result: "GenerationResult") -> str:
    return _generation_summary(result) + _refused("generate", result.failures, result.planned)


def _judging_summary(result: "JudgingResult") -> str:
    words = f"{result.responses} responses judged by {', '.join(result.judges)}, {result.unscored} unscored"
    words += f", {result.fixed} fixed texts not judged" if result.fixed else ""
    if result.without_reasoning:
        words += f", {result.without_reasoning} without reasoning: patterns not applicable"
    return words


def _judging(result: "JudgingResult") -> str:
    from pipelines.judges.alone import RULES_ALONE
    from pipelines.judges.tallies import count_words
    from pipelines.records import PATTERNS

    flags = ", ".join(f"{label} {count_words(result.counts, label)}" for label in (*PATTERNS, "unsafe"))
    refused = _refused("judge", result.failures, result.responses)
    cost = f"; ${result.cost:.2f}" if result.cost else ""
    note = f"\n{RULES_ALONE}" if result.rules_alone else ""
    saved = "".join(f"\n{name}: {saving_words(one)}" for name, one in result.saved.items())
    return f"{_judging_summary(result)}{refused}; {flags}{cost}{saved}{note}"


def saving_words(saved: "Saving") -> str:
    """What a cascade spared, in words."""
    share = saved.spared / max(saved.asked + saved.spared, 1)
    dollars = "" if saved.spared_usd is None else f", about ${saved.spared_usd:.2f}"
    return f"{saved.asked} requests; {saved.spared} spared ({share:.0%}{dollars})"


def _repair_summary(result: "RepairResult") -> str:
    cost = "" if result.cost is None else f", ${result.cost:.2f}"
    return (
        f"{result.mended} of {result.flagged} flagged rows mended ({result.strategy}), {result.requests} further "
        f"answers, {result.output_tokens} tokens{cost}; without a fault: {result.kept.filter} of {result.kept.rows} "
        f"rows as generated, {result.kept.repair} after repair"
    )


def _repair(result: "RepairResult") -> str:
    lines = [_repair_summary(result) + _refused("repair", result.failures, result.kept.rows)]
    if result.without_reasoning:
        lines.append(
            f"  {result.without_reasoning} flagged rows are left as they are: their teacher shows no reasoning, and "
            "asking it the same again would show none"
        )
    for fault in result.by_pattern:
        mended = ", ".join(f"{count} at attempt {number}" for number, count in enumerate(fault.mended, 1))
        lines.append(f"  {fault.pattern}: {fault.flagged} flagged, mended {mended}, {fault.left} left")
    return "\n".join(lines)


def _refused(stage: AskingStage, failures: "Failures", rows: int) -> str:
    return f"; {refused_words(stage, failures, rows)}" if failures.rows else ""


def _check(result: "CheckResult") -> str:
    lines = [f"{result.accepted} of {result.rows} rows accepted, {result.rows - result.accepted} rejected"]
    lines += [f"  {name}: {reason}: {count}" for (name, reason), count in result.by_reason.items()]
    if result.superseded:
        lines.append(f"  beside them {result.superseded} attempts of repair at rows of which another is kept")
    return "\n".join(lines)


def _duplicates(result: "Duplicates") -> str:
    what = "requests" if result.of == "prompt" else f"responses of {result.of}"
    return f"{result.items} {what}: {result.redundant} nearly repeat one of {result.clusters} others"


def _overlap(result: "Overlap") -> str:
    how = ", ".join(f"{method} {count}" for method, count in result.by_method.items())
    return (
        f"{result.set_name}: {result.items_hit} of {result.items} items overlap, with {result.prompts_hit} prompts and "
        f"{result.responses_hit} responses{f' ({how})' if how else ''}"
    )


def _release(result: "Release") -> str:
    return f"{result.path}: {', '.join(f'{name} {count}' for name, count in sorted(result.rows.items()))}"


def _publishing(result: "PublishingResult") -> str:
    if result.commit is None:
        return (
            f"{_changes(result.difference)}\nNothing was written. Without --dry-run: one commit to {result.repo}, tag "
            f"{result.tag}"
        )
    news = "published" if result.new_commit or result.new_tag else "was there already"
    return (
        f"{result.repo}@{result.tag} {news}, commit {result.commit[:8]}; read back, every hash matches\n"
        f'Load it: load_dataset("{result.repo}", "improved", revision="{result.tag}")'
    )


def _changes(difference: "Difference") -> str:
    lines = [
        f"{sign} {name}"
        for sign, names in (("+", difference.added), ("~", difference.changed), ("-", difference.removed))
        for name in names
    ]
    return "\n".join([*lines, f"{len(lines)} files, {difference.size / 1e6:.1f} MB to send"])


def _pulled(result: "PulledRelease") -> str:
    how = "downloaded" if result.fresh else "there already"
    if result.mended:
        how = f"downloaded again, since {len(result.mended)} files were not those of the commit ({result.mended[0]})"
    checked = f"{result.checked} things computed again, all match"
    return f"{result.folder}: {result.address}, commit {result.commit[:8]}, {how}; {checked}"


def _pushed(result: "PushedModel") -> str:
    news = "pushed" if result.fresh else "was there already"
    return (
        f"{result.repo} {news}, commit {result.commit[:8]}; read back, every hash matches\n"
        f'Load it: AutoModelForCausalLM.from_pretrained("{result.repo}", revision="{result.commit[:8]}")'
    )


# By name, so that a command loads only what it ran.
_SUMMARIES: dict[str, Callable[[Any], str]] = {
    "GenerationResult": _generation_summary,
    "JudgingResult": _judging_summary,
    "RepairResult": _repair_summary,
}


def _nll(result: "NllResult") -> str:
    mean = "" if result.mean is None else f", {result.mean:.3f} nats a token on average"
    long = f"; {result.unmeasured} are longer than it has positions for" if result.unmeasured else ""
    return f"{result.measured} accepted responses measured under {result.student}{mean}{long}"


_WORDS: dict[str, Callable[[Any], str]] = {
    "CheckResult": _check,
    "Duplicates": _duplicates,
    "GenerationResult": _generation,
    "JudgingResult": _judging,
    "NllResult": _nll,
    "Overlap": _overlap,
    "PromptsResult": _prompts,
    "PublishingResult": _publishing,
    "PulledRelease": _pulled,
    "PushedModel": _pushed,
    "Release": _release,
    "RepairResult": _repair,
}
