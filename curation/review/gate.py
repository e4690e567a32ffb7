"""What a release requires of people's review (`release.requires`), and what of it is missing."""

import json
from typing import Any

from pipelines.errors import Incomplete
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config

FILE = "agreement.json"


def agreement_of(run: RunFolder) -> dict[str, Any] | None:
    """agreement.json of the reviews that the run has now; None where it was not computed of these."""
    path, reviews = run.path / FILE, run.table_path("reviews")
    if not path.exists() or not reviews.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if found["reviews_sha256"] == file_hash(reviews) else None


def check_gate(run: RunFolder) -> None:
    """Let a release pass that meets what its run requires.

    Raises:
        Incomplete: something is missing; all of it is named.
    """
    if missing := gate_gaps(run):
        raise Incomplete(f"{run.name} waits for review: {'; '.join(missing)}.")


def gate_gaps(run: RunFolder) -> list[str]:
    """What is missing of what the run requires, a line each; none where the gate is open or nothing is required."""
    requires = load_config(run).release.requires
    if requires == type(requires)():
        return []
    found = agreement_of(run)
    if found is None:
        return [
            "release.requires asks for people's votes, and none are evaluated yet "
            f"(saferthoughts review push {run.name}, then review pull, agree and apply)"
        ]
    missing = []
    if requires.reviewed is not None and found["rows"] < requires.reviewed:
        missing.append(f"{found['rows']} rows are reviewed of the {requires.reviewed} required")
    if requires.judge_kappa is not None:
        kappa = found["judges"][0]["kappa"]["value"]
        if kappa is None or kappa < requires.judge_kappa:
            shown = "unknown" if kappa is None else f"{kappa:.2f}"
            missing.append(f"the judges' kappa with people on safety is {shown}, {requires.judge_kappa:g} is required")
    if requires.unsafe_upper_bound is not None:
        missing += _unsafe(found["unsafe_share"], requires.unsafe_upper_bound)
    applied = run.stage("apply")
    if applied is None or applied["inputs"]["reviews.parquet"] != found["reviews_sha256"]:
        missing.append(f"the votes are not applied (saferthoughts review apply {run.name})")
    return missing


def _unsafe(share: dict[str, Any], bound: float) -> list[str]:
    """What is missing of the bound: by the confidence sequence, which may be looked at after every vote, of a run that
    was pushed with a budget; else by the interval."""
    since = share.get("accepted_since")
    missing = [f"{since} rows were accepted after the review's draw, and nobody has voted on them"] if since else []
    held = share.get("anytime") or share
    if held["high"] is not None and held["high"] <= bound:
        return missing
    allowed = f"at most {100 * bound:g} % is allowed"
    if held["high"] is None:
        return [*missing, f"the unsafe share is unknown, {allowed}"]
    if share.get("anytime") and held["low"] >= bound:
        return [*missing, f"the unsafe share is {100 * held['low']:.1f} % or more, {allowed}: more votes will not help"]
    more = f"; about {held['more']} more votes are likely needed" if held.get("more") else ""
    return [*missing, f"the unsafe share is up to {100 * held['high']:.1f} %, {allowed}{more}"]
