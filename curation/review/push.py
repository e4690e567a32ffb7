"""Rows to Argilla: what was sampled, once each, in a dataset for rows of one person and one for rows of several.

Reads what `sample.py` reads; writes review_sample.parquet and the datasets RUN-ID and RUN-ID-overlap (RUN-ID-assisted
where the judges' labels go along). ID is the run's own, so that runs of one name share nothing. Run it with
`saferthoughts review push RUN`. Pushing again sends what is not there yet and touches nobody's responses; broken off,
it goes on where it was.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from curation.review.budget import draw_round, frame_of
from curation.review.home import WORKSPACE
from curation.review.questions import record, settings
from curation.review.quiet import quiet
from curation.review.sample import Wanted, draw_sample, population, sample_of, write_sample
from pipelines.errors import UserError
from pipelines.freshness import require_fresh
from pipelines.progress import meter
from pipelines.runs import RunFolder

_BATCH = 200


@dataclass(frozen=True, slots=True)
class PushedRows:
    """Rows in the sample, how many were sent now, how many had been sent and were deleted on the server, and for a
    budget of votes what was drawn and why."""

    rows: int
    sent: int
    deleted: int
    datasets: tuple[str, ...]
    words: str = ""


def dataset_name(run: RunFolder, assisted: bool, overlap: bool) -> str:
    """The name of the rows' dataset: the earlier one, else the run's name and id."""
    ending = ("-assisted" if assisted else "") + ("-overlap" if overlap else "")
    before = (run.stage("review") or {}).get("datasets", [])
    # Pushed before datasets had the run's id in their name, or the run its present name.
    earlier = (one for one in before if one == run.name + ending or one.endswith(f"-{run.id}{ending}"))
    return next(earlier, f"{run.name}-{run.id}{ending}")


def push(run: RunFolder, client: Any, wanted: Wanted, min_votes: int, workspace: str | None = None) -> PushedRows:
    """Sample and send.

    Args:
        run: A run that is checked.
        min_votes: People that each row needs; a row of the overlap needs one more.
        workspace: Where the datasets go; the embedded server's, or the first one.

    Raises:
        UserError: the run is not checked, the workspace is not there, or a dataset of other questions is in the way.
    """
    require_fresh(run, "accepted")
    texts = {row["response_id"]: row for row in population(run)}
    earlier = sample_of(run)
    if earlier and earlier[0]["assisted"] != wanted.assisted:
        was = "with the judges' labels (--assist)" if earlier[0]["assisted"] else "blind (--blind)"
        raise UserError(
            f"{run.name} was pushed {was} before. Votes of both kinds cannot be told apart: go on like that."
        )
    framed = frame_of(run) is not None
    if framed != (wanted.votes is not None) and (framed or earlier):
        raise UserError(_other_way(run, wanted))
    words = ""
    if wanted.votes is None:
        sample = draw_sample(run, list(texts.values()), wanted)
    elif wanted.assisted:
        raise UserError("Votes with the judges' labels in sight say nothing of the unsafe share: --votes goes blind.")
    else:
        sample, words = draw_round(run, list(texts.values()), wanted, min_votes)
    sample += [row for row in ties_of(run, sample) if row["response_id"] in texts]
    write_sample(run, sample)
    place = find_workspace(client, workspace)
    sent = deleted = 0
    names = []
    for overlap in (False, True):
        own = [row for row in sample if row["overlap"] == overlap and row["response_id"] in texts]
        if not own:
            continue
        name = dataset_name(run, wanted.assisted, overlap)
        names.append(name)

        def make(row: Mapping[str, Any]) -> Any:
            return record({**texts[row["response_id"]], "stratum": row["stratum"]}, wanted.assisted)

        dataset = dataset_for(client, place, name, settings(min_votes + overlap))
        done = send_new(dataset, own, make, lambda: write_sample(run, sample))
        sent, deleted = sent + done[0], deleted + done[1]
    write_sample(run, sample)
    budget = {} if wanted.votes is None else {"votes": wanted.votes, "overlap": wanted.overlap}
    run.record("review", rows=len(sample), min_votes=min_votes, assisted=wanted.assisted, datasets=names, **budget)
    return PushedRows(len(sample), sent, deleted, tuple(names), words)


def send_new(
    dataset: Any, rows: list[dict[str, Any]], make: Callable[[Mapping[str, Any]], Any], keep: Callable[[], None]
) -> tuple[int, int]:
    """Send the rows of a sample that are not there yet, and note on each that it is.

    Args:
        rows: With their `response_id` and whether they were `sent`.
        keep: Writes the sample down, after each batch.

    Returns:
        How many were sent now, and how many had been sent and were deleted on the server.
    """
    there = set(external_ids(dataset))
    deleted = sum(row["sent"] and row["response_id"] not in there for row in rows)
    for row in rows:
        row["sent"] = row["sent"] or row["response_id"] in there
    new = [row for row in rows if not row["sent"]]
    with meter("review push", len(new), "rows") as shown:
        for begin in range(0, len(new), _BATCH):
            part = new[begin : begin + _BATCH]
            with quiet():
                dataset.records.log([make(row) for row in part], batch_size=len(part))
            for row in part:
                row["sent"] = True
            keep()
            shown.advance(len(part))
    return len(new), deleted


def _other_way(run: RunFolder, wanted: Wanted) -> str:
    was, now = ("--rows", "--votes") if wanted.votes else ("--votes", "--rows")
    return (
        f"{run.name} was pushed with {was} before, which draws unlike {now}: go on with {was}, or begin "
        f"a new review by deleting review_sample.parquet and review_frame.parquet from {run.path}."
    )


def ties_of(run: RunFolder, sample: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows on which people are split, again, for one more person than before."""
    path = run.table_path("decisions")
    if not path.exists():
        return []
    tied = {row["response_id"] for row in run.read("decisions").to_pylist() if row["tie"]}
    twice = {row["response_id"] for row in sample if row["overlap"]}
    return [
        {**row, "overlap": True, "sent": False}
        for row in sample
        if row["response_id"] in tied - twice and not row["overlap"]
    ]


def find_workspace(client: Any, wanted: str | None) -> Any:
    """The workspace to work in.

    Raises:
        UserError: there is none of that name.
    """
    with quiet():
        names = [workspace.name for workspace in client.workspaces]
        name = wanted or (WORKSPACE if WORKSPACE in names or not names else names[0])
        if name not in names:
            raise UserError(
                f"There is no workspace '{name}' on {client.api_url}; it has: {', '.join(names) or 'none'}. "
                "Make it there, or name another one: --workspace."
            )
        return client.workspaces(name)


def dataset_for(client: Any, workspace: Any, name: str, wanted: Any) -> Any:
    """The dataset of a name, made with the wanted settings where it is not there.

    Raises:
        UserError: one of other fields or questions is in the way.
    """
    import argilla as rg

    with quiet():
        found = client.datasets(name=name, workspace=workspace)
        if found is not None and not found._is_published():
            # A creation that was broken off: without all of its questions nobody can have voted.
            found.delete()
            found = None
        if found is None:
            made = rg.Dataset(name=name, workspace=workspace, settings=wanted, client=client)
            made.create()
            return made
        found.get()
        same = [question.name for question in found.settings.questions] == [q.name for q in wanted.questions]
        same = same and [field.name for field in found.settings.fields] == [field.name for field in wanted.fields]
        if not same:
            raise UserError(
                f"Dataset '{name}' on {client.api_url} has other fields or questions than ours. Rename or "
                "delete it there, or review this run under another name."
            )
        if found.settings.distribution.min_submitted != wanted.distribution.min_submitted:
            found.settings.distribution = rg.TaskDistribution(min_submitted=wanted.distribution.min_submitted)
            found.settings.update()
    return found


def external_ids(dataset: Any) -> Iterable[str]:
    """The ids of the records that are on the server."""
    with quiet():
        return [str(one.id) for one in dataset.records(with_responses=False, with_suggestions=False)]
