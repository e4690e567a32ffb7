"""People's majority over the judges: what a row is after review.

Reads reviews; writes decisions.parquet, a row a reviewed response. Run it with `saferthoughts review apply RUN`, which
checks the run anew (`--dry-run` does so on a copy): rows that people call unsafe are rejected as `human`, rows whose
pattern or unsafety they do not see are no longer rejected for it. Ties decide nothing, and the next push asks one more
person.
"""

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.review.majority import majority_of
from curation.review.picked import picked_ids
from curation.review.questions import OVER_REFUSAL, SAFE
from curation.review.sample import sample_of
from curation.sql.views import DECISIONS
from pipelines.files import scratch_folder
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, file_hash


@dataclass(frozen=True, slots=True)
class Applied:
    """Reviewed rows: unsafe and safe by majority, ties."""

    rows: int
    unsafe: int
    safe: int
    ties: int


@dataclass(frozen=True, slots=True)
class AppliedPreview:
    """What `apply` and the check after it would do: ids of the rows that leave the accepted ones and of those that come
    back, and how many are accepted before and after. `reviews_sha256` is of the votes that it was made of."""

    applied: Applied
    leaves: tuple[str, ...]
    returns: tuple[str, ...]
    before: int
    after: int
    reviews_sha256: str


def preview(run: RunFolder) -> AppliedPreview:
    """Apply the votes and check, on a copy of the run's tables; the run stays as it is.

    Raises:
        UserError: nothing was pulled yet, or the run is not checked.
    """
    from curation.quality.checks import check

    before = _accepted(run)
    with scratch_folder("preview") as folder:
        copy = RunFolder(folder / run.name)
        copy.path.mkdir()
        for file in run.path.iterdir():
            if file.is_file() and (file.suffix == ".parquet" or file.name in ("manifest.json", "run.yaml")):
                _linked(file, copy.path / file.name)
        mark = file_hash(copy.table_path("reviews")) if copy.table_path("reviews").exists() else ""
        applied = apply(copy)
        check(copy)
        after = _accepted(copy)
    leaves, returns = tuple(sorted(before - after)), tuple(sorted(after - before))
    return AppliedPreview(applied, leaves, returns, len(before), len(after), mark)


def _accepted(run: RunFolder) -> set[str]:
    return {str(name) for name in run.read("accepted").column("response_id").to_pylist()}


def _linked(file: Path, to: Path) -> None:
    """The same file by another name; a stage replaces a table and never writes into it."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copy(file, to)


def apply(run: RunFolder) -> Applied:
    """Decide every reviewed row and write decisions.parquet.

    Raises:
        UserError: nothing was pulled yet.
    """
    by_row: dict[str, list[dict[str, Any]]] = defaultdict(list)
    sampled = {row["response_id"] for row in sample_of(run)} | picked_ids(run)
    for row in run.read("reviews").to_pylist():
        if row["response_id"] in sampled:
            by_row[row["response_id"]].append(row)
    decisions = [_decided(name, votes) for name, votes in sorted(by_row.items())]
    run.write("decisions", pa.Table.from_pylist(decisions, schema=DECISIONS))
    run.record(
        "apply",
        inputs={"reviews.parquet": file_hash(run.table_path("reviews"))},
        outputs={"decisions.parquet": file_hash(run.table_path("decisions"))},
        counts={"rows": len(decisions), "unsafe": sum(row["unsafe"] is True for row in decisions)},
    )
    return Applied(
        rows=len(decisions),
        unsafe=sum(row["unsafe"] is True for row in decisions),
        safe=sum(row["unsafe"] is False for row in decisions),
        ties=sum(row["tie"] for row in decisions),
    )


def _decided(response_id: str, votes: list[dict[str, Any]]) -> dict[str, Any]:
    safety = [vote[SAFE] for vote in votes if vote[SAFE] in ("yes", "no")]
    safe = majority_of(safety)
    labels = {}
    for name in PATTERNS:
        marks = [vote[name] for vote in votes if vote[name] is not None]
        labels[name] = majority_of(marks)
    helps = [vote[OVER_REFUSAL] for vote in votes if vote[OVER_REFUSAL] not in (None, "harmful")]
    return {
        "response_id": response_id,
        "unsafe": None if safe is None else safe == "no",
        **labels,
        "compliance": majority_of(helps),
        "votes": len(votes),
        "tie": bool(safety) and safe is None,
    }
