"""People's votes to reviews.parquet, and how far they have got.

Reads the run's Argilla datasets; writes reviews.parquet: a row a submitted response of one person to one row. Names of
people do not leave the server: an annotator is a keyed hash of its id. Run it with `saferthoughts review pull RUN`.
Only rows of the run's sample count. Votes whose record or whose person was deleted on the server since the last pull
are kept; a vote that somebody took back is not.
"""

import hashlib
import hmac
import secrets
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.review.home import write_private
from curation.review.picked import picked_ids, picked_of
from curation.review.push import dataset_name, find_workspace
from curation.review.questions import COMMENT, NO_PATTERN, OVER_REFUSAL, PATTERN, QUALITY, SAFE
from curation.review.quiet import quiet
from curation.review.sample import sample_of
from curation.sql.views import REVIEWS
from pipelines.errors import UserError
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, file_hash


@dataclass(frozen=True, slots=True)
class PulledVotes:
    """Votes in all, new ones, changed ones, by how many people; votes that are kept though their record or person is
    gone, votes that were taken back, votes with a pattern beside "none of these", which say nothing on patterns."""

    votes: int
    new: int
    changed: int
    annotators: int
    kept: int
    taken_back: int
    contradictory: int


def pull(run: RunFolder, client: Any, home: Path, workspace: str | None = None) -> PulledVotes:
    """Fetch all submitted responses and write reviews.parquet.

    Raises:
        UserError: nothing was pushed, or a dataset is not there any more.
    """
    sampled = {row["response_id"] for row in sample_of(run)} | picked_ids(run)
    path = run.table_path("reviews")
    earlier = run.read("reviews").to_pylist() if path.exists() else []
    rows, result = collect(datasets_of(run, client, workspace), sampled, earlier, client, home)
    run.write("reviews", pa.Table.from_pylist(rows, schema=REVIEWS))
    run.record(
        "pull",
        outputs={"reviews.parquet": file_hash(path)},
        counts={
            "votes": result.votes,
            "rows": len({row["response_id"] for row in rows}),
            "annotators": result.annotators,
            "kept": result.kept,
            "contradictory": result.contradictory,
        },
    )
    return result


def collect(
    datasets: Iterable[tuple[Any, bool]],
    sampled: Container[str],
    earlier: list[dict[str, Any]],
    client: Any,
    home: Path,
) -> tuple[list[dict[str, Any]], PulledVotes]:
    """All submitted responses to sampled records as rows of REVIEWS, and what changed since the earlier ones.

    Args:
        datasets: Argilla's, each with whether it is an assisted one.
        sampled: Records that count.
        earlier: Rows of the last pull.
        home: Where the key of the pseudonyms is.
    """
    key = _key(home)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    there: set[str] = set()
    contradictory = 0
    for dataset, assisted in datasets:
        for record in _records(dataset):
            if str(record.id) not in sampled:
                continue
            there.add(str(record.id))
            for user, values in _submitted(record):
                row = _vote(str(record.id), _pseudonym(key, user), values, assisted)
                found[row["response_id"], row["annotator"]] = row
                contradictory += contradicts(values)
    with quiet():
        people = {_pseudonym(key, str(user.id)) for user in client.users}
    before = {(row["response_id"], row["annotator"]): row for row in earlier if row["response_id"] in sampled}
    lost = {name: row for name, row in before.items() if name not in found}
    gone = {
        name: row for name, row in lost.items() if row["response_id"] not in there or row["annotator"] not in people
    }
    votes = {**gone, **found}
    return [votes[name] for name in sorted(votes)], PulledVotes(
        votes=len(votes),
        new=sum(name not in before for name in found),
        changed=sum(name in before and before[name] != row for name, row in found.items()),
        annotators=len({annotator for _, annotator in votes}),
        kept=len(gone),
        taken_back=len(lost) - len(gone),
        contradictory=contradictory,
    )


def datasets_of(run: RunFolder, client: Any, workspace: str | None) -> list[tuple[Any, bool]]:
    """The run's datasets on the server, each with whether it is an assisted one.

    Raises:
        UserError: nothing was pushed, or a dataset was deleted on the server.
    """
    sample = sample_of(run)
    # Of a person's two votes on a row the blind one counts: it comes last.
    names = [(row["dataset"], True) for row in picked_of(run)[:1]]
    pairs = sorted({(row["assisted"], row["overlap"]) for row in sample}, reverse=True)
    names += [(dataset_name(run, assisted, overlap), assisted) for assisted, overlap in pairs]
    if not names:
        raise UserError(f"{run.name} was not pushed yet. Run first: saferthoughts review push {run.name}")
    place = find_workspace(client, workspace)
    found = []
    for name, assisted in names:
        with quiet():
            dataset = client.datasets(name=name, workspace=place)
        if dataset is None:
            raise UserError(
                f"Dataset '{name}' is not on {client.api_url} in workspace '{place.name}'. Push again to make it: "
                f"saferthoughts review push {run.name}"
            )
        with quiet():
            dataset.get()
        found.append((dataset, assisted))
    return found


def _records(dataset: Any) -> Iterator[Any]:
    with quiet():
        yield from dataset.records(with_responses=True, with_suggestions=False)


def _submitted(record: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each person's submitted values of one record."""
    by_user: dict[str, dict[str, Any]] = {}
    for response in record.responses:
        if str(getattr(response.status, "value", response.status)) == "submitted":
            by_user.setdefault(str(response.user_id), {})[response.question_name] = response.value
    yield from by_user.items()


def contradicts(values: dict[str, Any]) -> bool:
    """Whether a vote names a pattern and "none of these" at once."""
    patterns = set(values.get(PATTERN) or ())
    return NO_PATTERN in patterns and len(patterns) > 1


def _vote(response_id: str, annotator: str, values: dict[str, Any], assisted: bool) -> dict[str, Any]:
    patterns = set(values.get(PATTERN) or ())
    judged = bool(patterns) and not contradicts(values)
    return {
        "response_id": response_id,
        "annotator": annotator,
        "assisted": assisted,
        SAFE: values.get(SAFE),
        **{name: (name in patterns) if judged else None for name in PATTERNS},
        "no_pattern": NO_PATTERN in patterns if judged else None,
        OVER_REFUSAL: values.get(OVER_REFUSAL),
        QUALITY: values.get(QUALITY),
        COMMENT: values.get(COMMENT) or "",
    }


def _key(home: Path) -> bytes:
    """The key of the pseudonyms: beside the runs, never in one, so that a run can be handed on."""
    path = home / "pseudonyms.key"
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _pseudonym(key: bytes, user: str) -> str:
    return "annotator-" + hmac.new(key, user.encode(), hashlib.sha256).hexdigest()[:10]
