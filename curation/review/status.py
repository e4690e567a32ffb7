"""How far people have got with a run's review, and how long the rest will take at their pace.

Reads the run's datasets on the Argilla server; writes nothing. Run it with `saferthoughts review status RUN`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count, pairwise
from statistics import median
from typing import Any

from curation.review.people import compared_people
from curation.review.pull import contradicts, datasets_of
from curation.review.questions import SAFE
from curation.review.quiet import quiet
from pipelines.runs import RunFolder

# A longer gap between two responses is a break.
_BREAK_S = 600
_PAGE = 500


@dataclass(frozen=True, slots=True)
class ReviewProgress:
    """One dataset: records with all their votes, each annotator's submitted responses, how many more wait for each,
    those that contradict themselves ("none of these" beside a pattern), and the usual time for one.

    `far` has who votes on safety unlike the others (`people.compared_people`): rows on which one of them
    votes otherwise, of how many.

    Times are in seconds, None before anybody has submitted two in one go.
    """

    dataset: str
    total: int
    completed: int
    by_annotator: dict[str, int]
    waiting: dict[str, int]
    far: dict[str, tuple[int, int]]
    contradictory: dict[str, int]
    seconds_each: float | None
    left_s: float | None


def progress(run: RunFolder, client: Any, workspace: str | None = None) -> list[ReviewProgress]:
    """Every dataset of the run.

    Raises:
        UserError: nothing was pushed, or a dataset is not there any more.
    """
    return progress_of(client, [dataset for dataset, _ in datasets_of(run, client, workspace)])


def progress_of(client: Any, datasets: Iterable[Any]) -> list[ReviewProgress]:
    """How far people have got with each of some datasets."""
    with quiet():
        names = {str(user.id): user.username for user in client.users}
        return [_of(client, dataset, names) for dataset in datasets]


def _of(client: Any, dataset: Any, names: dict[str, str]) -> ReviewProgress:
    submitted: Counter[str] = Counter()
    contradictory: Counter[str] = Counter()
    done_of_open: Counter[str] = Counter()
    moments: dict[str, list[datetime]] = defaultdict(list)
    safe: dict[str, dict[str, Any]] = {}
    total = completed = votes = 0
    needed = dataset.settings.distribution.min_submitted
    for record in _records(client, dataset):
        total += 1
        given = [response for response in record.get("responses", []) if response["status"] != "draft"]
        own = [response for response in given if response["status"] == "submitted"]
        completed += len(own) >= needed
        votes += min(len(own), needed)
        if len(own) < needed:
            done_of_open.update(names.get(response["user_id"], response["user_id"]) for response in given)
        for response in own:
            name = names.get(response["user_id"], response["user_id"])
            submitted[name] += 1
            values = {question: value.get("value") for question, value in (response.get("values") or {}).items()}
            contradictory[name] += contradicts(values)
            moments[name].append(datetime.fromisoformat(response["inserted_at"]))
            if values.get(SAFE) in ("yes", "no"):
                safe.setdefault(record["id"], {})[name] = values[SAFE]
    gaps = [gap for times in moments.values() for gap in _gaps(sorted(times)) if gap < _BREAK_S]
    each = median(gaps) if gaps else None
    return ReviewProgress(
        dataset.name,
        total,
        completed,
        by_annotator=dict(sorted(submitted.items())),
        waiting={name: total - completed - done_of_open[name] for name in sorted(submitted)},
        far={one.annotator: (one.apart, one.shared) for one in compared_people(safe) if one.far},
        contradictory=dict(+contradictory),
        seconds_each=each,
        left_s=None if each is None else each * (needed * total - votes),
    )


def _records(client: Any, dataset: Any) -> Iterator[dict[str, Any]]:
    """The server's records with their responses; the client's own objects leave out when a response was given."""
    for offset in count(0, _PAGE):
        answer = client.http_client.get(
            f"/api/v1/datasets/{dataset.id}/records", params={"include": "responses", "limit": _PAGE, "offset": offset}
        )
        answer.raise_for_status()
        items = answer.json()["items"]
        yield from items
        if len(items) < _PAGE:
            return


def _gaps(times: list[datetime]) -> list[float]:
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
