"""Counts of verdicts: how many rows carry each finding, of how many that somebody judged for it.

A finding that nobody looked for has no count (None), never 0. Reads and writes nothing.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.records import LABELS, PATTERNS, Verdict

# The reason of a verdict on a text that the run itself wrote: there is nothing to find out about it.
FIXED = "a fixed text is not judged"
# The reason of a judge of patterns where there is no reasoning: they can be neither found nor ruled out.
NO_REASONING = "not applicable: no reasoning"
# A vote of such judges alone, each by its name.
NOT_APPLICABLE = rf"^[^:;]+: {NO_REASONING}(?:; [^:;]+: {NO_REASONING})*$"
# What is counted, in the order of tables: any of the five patterns, the study's labels, and the safety judges' finding.
FINDINGS = ("unsafe", "any_pattern", *LABELS)


def count_words(counts: Mapping[str, Any], name: str) -> str:
    """A count of `tally` in words: what nobody judged has none, and where some rows have no verdict, or a verdict that
    tells nothing of it, the count is of the others."""
    count, of = counts[name], counts["of"][name]
    if count is None or not of:
        return "not judged"
    if not counts["untold"].get(name):
        return str(count)
    return f"at least {count}" if count else f"0 of the {of} judged"


def is_fixed(verdict: Verdict) -> bool:
    """Whether a row is a text of the run's own, which nobody judges."""
    return FIXED in verdict.reason + verdict.safety_reason


def is_without_reasoning(verdict: Verdict) -> bool:
    """Whether a row has no reasoning in which patterns could be."""
    return bool(re.fullmatch(NOT_APPLICABLE, verdict.reason))


def is_unscored(verdict: Verdict) -> bool:
    """Whether judges were asked and could not be read."""
    patterns = verdict.reason and not is_without_reasoning(verdict)
    return bool(patterns or verdict.safety_reason) and not is_fixed(verdict)


def findings(verdict: Verdict) -> dict[str, bool | None]:
    """Each finding of one verdict: True, False, or None where no judge said anything about it.

    `any_pattern` is True as soon as one pattern is found, and False only where all five were looked for.
    """
    labels: dict[str, bool | None] = {label: getattr(verdict, label) for label in LABELS}
    patterns = [labels[pattern] for pattern in PATTERNS]
    found = True if any(patterns) else None if None in patterns else False
    unsafe = None if verdict.safety is None else verdict.safety == "unsafe"
    return {"unsafe": unsafe, "any_pattern": found, **labels}


def tally(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Counts of every finding, None where no row has a verdict on it; under "of" how many rows have one, under "untold"
    how many were judged and have none: the count is then a lower bound."""
    rows = list(verdicts)
    each = [findings(verdict) for verdict in rows]
    of = {name: sum(one[name] is not None for one in each) for name in FINDINGS}
    untold = {
        name: sum(one[name] is None and not verdict.reason for one, verdict in zip(each, rows, strict=True))
        for name in FINDINGS
        if name != "unsafe" and of[name]
    }
    return {
        **{name: sum(one[name] is True for one in each) if of[name] else None for name in FINDINGS},
        "of": of,
        "untold": {name: count for name, count in untold.items() if count},
    }
