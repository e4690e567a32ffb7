"""What a release requires of people's review (`release.requires`), and what of it is missing."""

import json
from typing import Any

from pipelines.errors import UserError
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
        UserError: something is missing; all of it is named.
    """
    requires = load_config(run).release.requires
    if requires == type(requires)():
        return
    found = agreement_of(run)
    if found is None:
        raise UserError(
            f"{run.name} requires people's review (release.requires) and has none that is evaluated. Run: "
            f"saferthoughts review pull {run.name}, review agree {run.name}, review apply {run.name}"
        )
    missing = []
    if requires.reviewed is not None and found["rows"] < requires.reviewed:
        missing.append(f"{found['rows']} rows are reviewed of the {requires.reviewed} required")
    if requires.judge_kappa is not None:
        kappa = found["judges"][0]["kappa"]["value"]
        if kappa is None or kappa < requires.judge_kappa:
            shown = "unknown" if kappa is None else f"{kappa:.2f}"
            missing.append(f"the judges' kappa with people on safety is {shown}, {requires.judge_kappa:g} is required")
    if requires.unsafe_upper_bound is not None:
        high = found["unsafe_share"]["high"]
        if high is None or high > requires.unsafe_upper_bound:
            shown = "unknown" if high is None else f"up to {100 * high:.1f} %"
            missing.append(f"the unsafe share is {shown}, at most {100 * requires.unsafe_upper_bound:g} % is allowed")
    applied = run.stage("apply")
    if applied is None or applied["inputs"]["reviews.parquet"] != found["reviews_sha256"]:
        missing.append(f"the votes are not applied (saferthoughts review apply {run.name})")
    if missing:
        raise UserError(f"{run.name} is not released, since its run requires more: {'; '.join(missing)}.")
