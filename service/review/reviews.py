"""A run's review as page and API show it, and votes pulled while a review is open.

Reads the run's manifest, agreement.json and tables, and asks the Argilla server how many votes each person has given. A
pull is a job like any other: `saferthoughts review pull RUN --agree`.
"""

import asyncio
import json
import subprocess
import time
import traceback
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

from curation.review.gate import agreement_of, gate_gaps
from curation.review.home import address
from pipelines.errors import UserError
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config
from pipelines.settings.parts import Part, validated
from service.app_state import AppState
from service.http.problems import Problem
from service.jobs.commands import command_of, last_line
from service.jobs.jobs import cli_arguments
from service.jobs.queue import Job

_ASK_S = 10.0
_MOST_BYTES = 4 * 1024 * 1024
# Votes are counted this often, and pulled on their own where there are others than before, so often at most.
_COUNT_EVERY_S, _PULL_EVERY_S = 10.0, 60.0
# Reviews that are looked after: the newest runs, and none that was begun longer ago.
_MOST_OPEN, _OPEN_DAYS = 50, 60
_PREVIEW_S = 600
AUTOMATIC = "the service"


class VotesSeen(BaseModel):
    """What is on the Argilla server: rows, those with all their votes, and votes by account."""

    rows: int
    completed: int
    people: dict[str, int]

    @property
    def votes(self) -> int:
        """Votes in all."""
        return sum(self.people.values())


class ReviewState(BaseModel):
    """A run's review. Votes are counted twice: `seen` on the server now, `votes` as far as they are pulled."""

    ready: bool = Field(description="whether the run is checked, so that rows can be sent")
    sent_rows: int | None = Field(description="rows that were sent; null before the first")
    votes_wanted: int | None = Field(description="the budget of votes, where one was given")
    people_per_row: int | None
    assisted: bool
    seen: VotesSeen | None = Field(description="null where the server is not there, or nothing was sent")
    seen_problem: str
    votes: int
    voted_rows: int
    people: int
    applied: bool = Field(description="whether the votes that were pulled are applied")
    requires: dict[str, Any] = Field(description="release.requires of the run")
    missing: list[str] = Field(description="what the gate lacks; empty where it is open, or nothing is required")
    agreement: dict[str, Any] | None = Field(description="agreement.json of the votes that were pulled")
    reviews_sha256: str = Field(description="of the votes that were pulled; `apply` takes it")


class Applying(Part):
    """A second look: votes are applied that are still those of the preview."""

    reviews_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="as the preview has it")


class _Sent(BaseModel):
    """The manifest's entry of `review push`, as far as it is shown."""

    rows: int
    min_votes: int
    finished: AwareDatetime
    assisted: bool = False
    datasets: list[str] = []
    votes: int | None = None


class _Pulled(BaseModel):
    """What the manifest counts of `review pull`."""

    votes: int = 0
    rows: int = 0
    annotators: int = 0


def sent_and_pulled(run: RunFolder) -> tuple[_Sent | None, _Pulled]:
    """What was sent to people, and what was pulled.

    Raises:
        UserError: the manifest cannot be read, or not these entries.
    """
    sent, pulled = run.stage("review"), run.stage("pull")
    where = f"{run.path}/manifest.json"
    counts = {} if pulled is None else pulled.get("counts")
    return None if sent is None else validated(_Sent, sent, where), validated(_Pulled, counts, where)


def review_state(state: AppState, run: RunFolder) -> ReviewState:
    """How far a run's review is.

    Raises:
        UserError: a file of the run cannot be read.
    """
    sent, pulled = sent_and_pulled(run)
    applied = run.stage("apply")
    seen, problem = None, ""
    if sent is not None and state.argilla.state().state in ("stopped", "starting"):
        problem = "Argilla does not run: votes that were not pulled yet are seen once it does."
    elif sent is not None:
        try:
            seen = votes_seen(state, sent.datasets)
        except UserError as error:
            problem = str(error)
    mark = _reviews_mark(run)
    return ReviewState(
        ready=run.stage("check") is not None,
        sent_rows=None if sent is None else sent.rows,
        votes_wanted=None if sent is None else sent.votes,
        people_per_row=None if sent is None else sent.min_votes,
        assisted=bool(sent and sent.assisted),
        seen=seen,
        seen_problem=problem,
        votes=pulled.votes,
        voted_rows=pulled.rows,
        people=pulled.annotators,
        applied=bool(mark) and applied is not None and applied["inputs"]["reviews.parquet"] == mark,
        requires=load_config(run).release.requires.model_dump(exclude_none=True),
        missing=gate_gaps(run),
        agreement=agreement_of(run),
        reviews_sha256=mark,
    )


def _reviews_mark(run: RunFolder) -> str:
    path = run.table_path("reviews")
    return file_hash(path) if path.exists() else ""


def votes_seen(state: AppState, datasets: list[str]) -> VotesSeen:
    """Votes on the server, over some datasets.

    Raises:
        UserError: it is not there, refuses the key, or answers otherwise than Argilla does.
    """
    try:
        url, key = address(state.runs)
        there = {one["name"]: one["id"] for one in _ask(url, key, "me/datasets")["items"]}
        rows = completed = 0
        people: dict[str, int] = {}
        for name in datasets:
            if name not in there:
                raise UserError(f"The dataset '{name}' is not on the Argilla server any more. Send the rows again.")
            found = _ask(url, key, f"datasets/{there[name]}/progress")
            rows, completed = rows + int(found["total"]), completed + int(found["completed"])
            for person in _ask(url, key, f"datasets/{there[name]}/users/progress")["users"]:
                given = int(person["completed"]["submitted"]) + int(person["pending"]["submitted"])
                if given:
                    people[str(person["username"])] = people.get(str(person["username"]), 0) + given
        return VotesSeen(rows=rows, completed=completed, people=dict(sorted(people.items())))
    except urllib.error.HTTPError as error:
        raise UserError(
            f"The Argilla server does not say how many votes there are (HTTP {error.code}): pull them by the button."
        ) from error
    except OSError as error:
        raise UserError(f"The Argilla server does not answer ({getattr(error, 'reason', error)}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError("What answers in Argilla's place is no Argilla server of a known version.") from error


def _ask(url: str, key: str, path: str) -> Any:
    request = urllib.request.Request(f"{url}/api/v1/{path}", headers={"X-Argilla-Api-Key": key})
    with urllib.request.urlopen(request, timeout=_ASK_S) as answer:
        return json.loads(answer.read(_MOST_BYTES))


def pull_votes(state: AppState, run: RunFolder, asked_by: str) -> Job:
    """Queue a pull.

    Raises:
        Problem: 409, nothing was sent yet, or the run has a job that is not over.
    """
    if run.stage("review") is None:
        raise Problem(409, f"No rows of {run.name} were sent to people yet.")
    return state.put(run, "votes", (*cli_arguments("review pull", run.name), "--agree"), asked_by)


def preview_apply(state: AppState, run: RunFolder) -> dict[str, Any]:
    """What applying the votes would change, in a process of its own.

    Raises:
        Problem: 409, no votes were pulled yet.
        UserError: what the command says.
    """
    if not _reviews_mark(run):
        raise Problem(409, f"No votes on rows of {run.name} were pulled yet.")
    command = command_of(state.runs, "review", "apply", run.name, "--dry-run", "--json")
    with state.reporting:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PREVIEW_S, check=False)
    if done.returncode:
        raise UserError(f"There is no preview: {last_line(done.stderr) or 'it says nothing'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def apply_votes(state: AppState, run: RunFolder, wanted: Applying, asked_by: str) -> Job:
    """Queue what the preview showed.

    Raises:
        Problem: 409, there are other votes now, or the run has a job that is not over.
    """
    if _reviews_mark(run) != wanted.reviews_sha256:
        raise Problem(409, "There are other votes than those of this preview. Look at a new one.")
    return state.put(run, "apply", cli_arguments("review apply", run.name), asked_by)


class VotesWatcher:
    """Pulls votes on its own while a review is open and its server is there."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._pulled: dict[str, tuple[float | None, int]] = {}

    async def work(self) -> None:
        """Count and pull until cancelled."""
        while True:
            await asyncio.sleep(_COUNT_EVERY_S)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # noqa: BLE001 - one bad round must not end the watch
                traceback.print_exc()

    def look(self) -> None:
        """Queue a pull of each open review that has other votes than were pulled."""
        if self._state.argilla.state().state not in ("running", "yours"):
            return
        for name in self._state.reader.names()[:_MOST_OPEN]:
            # One that is broken, busy or not on this server is left for the next round.
            with suppress(UserError, Problem):
                self._look_at(RunFolder.open(self._state.runs, name))

    def _look_at(self, run: RunFolder) -> None:
        sent, pulled = sent_and_pulled(run)
        if sent is None or (datetime.now(UTC) - sent.finished).days >= _OPEN_DAYS:
            return
        when, count = self._pulled.get(run.name, (None, pulled.votes))
        if when is not None and time.monotonic() - when < _PULL_EVERY_S:
            return
        votes = votes_seen(self._state, sent.datasets).votes
        # A pull may find more than were counted before it, and keeps votes that are gone from the server.
        if votes not in (count, pulled.votes):
            pull_votes(self._state, run, AUTOMATIC)
            self._pulled[run.name] = (time.monotonic(), votes)
