"""Asking a teacher through OpenAI's Batch API: at half the price, an answer within 24 hours.

Reads the asks of a run's plan; writes replies into the run's ledger, and `batches.sqlite` and `batches/` while answers
are outstanding (batch_store.py). `saferthoughts generate RUN` does it for every teacher with `transport: batch`; when
it is stopped, even by kill -9, batches go on at the provider, and the same command fetches their answers.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import openai

from pipelines.command_line import typed_command
from pipelines.errors import Interrupted, UserError, one_line
from pipelines.generate.plan import Ask
from pipelines.progress import Meter, console, meter
from pipelines.runs import RunFolder, atomic
from pipelines.settings.teacher import Teacher
from pipelines.teachers.batch.results import Failure, Results, discounted, take_in
from pipelines.teachers.batch.status import BatchStatus, mark_of, read_status
from pipelines.teachers.batch.store import Batch, BatchStore, Line, Origin, opened
from pipelines.teachers.client import api_key, request_body, worth_repeating
from pipelines.teachers.ledger import Ledger

# The key of our mark in a batch's metadata.
_MARK = "saferthoughts"
_ENDED = {"completed": "was completed", "expired": "expired", "cancelled": "was cancelled at the provider"}
# How the API says that its queue for the model is full.
_CROWDED = "token_limit_exceeded"
# For so long a request to stop may go unnoticed.
_NAP_S = 0.2


@dataclass(frozen=True, slots=True)
class BatchRules:
    """The API's bounds, and our patience. Times in seconds."""

    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    price_factor: float = 0.5  # what a batch costs, as a share of the teacher's prices
    attempts: int = 3  # how often a request is asked that expires or fails through no fault of its own
    poll_s: float = 5.0
    longest_poll_s: float = 60.0
    settle_s: float = 5.0  # before looking for a batch whose creation was not answered
    call_timeout_s: float = 60.0
    patience_s: float = 3600.0  # with a provider that cannot be reached while batches are under way


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What a call did: batches taken in, requests with a new answer, requests that finally failed."""

    batches: int
    answered: int
    failed: int


def run_batches(
    run: RunFolder,
    name: str,
    teacher: Teacher,
    base_url: str,
    asks: Iterable[Ask],
    ledger: Ledger,
    stopped: Callable[[], bool],
    rules: BatchRules = BatchRules(),
) -> BatchOutcome:
    """Ask for what the ledger does not hold, and wait for the answers; what earlier calls submitted is not asked again.

    Args:
        run: The run whose folder keeps the record of its batches.
        name: The teacher's name in the configuration.
        asks: What this teacher is to answer, in any order; a key may occur several times.
        ledger: Gets every reply, and every request that finally failed. A reply's latency is that of its batch.
        stopped: Whether to stop waiting; asked several times a second.

    Raises:
        UserError: no key, no Batch API, a batch that was refused, or a provider that cannot be reached.
        Interrupted: stopped, by `stopped` or Ctrl-C; the message says how to go on.
    """
    key = api_key(name, teacher)
    with (
        opened(run, name) as store,
        # Repeats are made here, since a creation must not be repeated blindly.
        openai.OpenAI(base_url=base_url, api_key=key, timeout=rules.call_timeout_s, max_retries=0) as client,
    ):
        runner = _Runner(run, Origin(name, teacher.model, base_url), teacher, store, client, ledger, stopped, rules)
        try:
            missing = (_line(teacher, ask) for ask in asks if ask.key and not ledger.has(ask.key))
            store.write(runner.origin, missing, rules.max_requests, rules.max_bytes)
            return runner.follow()
        except (KeyboardInterrupt, _Stopped) as error:
            raise Interrupted(runner.how_to_go_on()) from error


def _line(teacher: Teacher, ask: Ask) -> Line:
    """An ask as the body that the client sends for it."""
    return Line(ask.key, request_body(teacher, ask.messages, json.loads(ask.sampling)))


class _Stopped(Exception):
    """`stopped()` said so."""


class _Runner:
    """One call: submits, looks, takes in."""

    def __init__(
        self,
        run: RunFolder,
        origin: Origin,
        teacher: Teacher,
        store: BatchStore,
        client: openai.OpenAI,
        ledger: Ledger,
        stopped: Callable[[], bool],
        rules: BatchRules,
    ) -> None:
        self.origin = origin
        self._run, self._teacher, self._store, self._client = run, teacher, store, client
        self._ledger, self._stopped, self._rules = ledger, stopped, rules
        # Files are large; only they need the teacher's patience.
        self._files = client.with_options(timeout=teacher.attempt_timeout_s).files
        self._price = discounted(teacher.price, rules.price_factor)
        self._batches = self._answered = self._failed = 0
        self._cost = 0.0
        self._reached = time.monotonic()

    def how_to_go_on(self) -> str:
        """What somebody is told who stopped the wait."""
        ids = [batch.batch_id for batch in self._open() if batch.batch_id]
        again = typed_command(f"saferthoughts generate {self._run.name}")
        if not ids:
            return f"Stopped before the provider confirmed a batch; go on with: {again}"
        shown = f"{', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}"
        return f"Stopped waiting. Batches that go on at the provider: {shown}. Fetch their answers with: {again}"

    def follow(self) -> BatchOutcome:
        """Submit what is not submitted, and take in what is finished, until nothing is left."""
        pause = self._rules.poll_s
        waiting = self._open()
        if waiting:
            with meter("batch", sum(batch.requests for batch in waiting), "answers") as shown:
                while waiting:
                    under_way, changed = self._look_at(waiting)
                    changed |= self._submit_all(waiting, len(under_way))
                    waiting = self._open()
                    self._show(shown, waiting, under_way)
                    pause = self._rules.poll_s if changed else min(pause * 1.5, self._rules.longest_poll_s)
                    if waiting:
                        self._pause(pause)
        return BatchOutcome(self._batches, self._answered, self._failed)

    def _open(self) -> list[Batch]:
        return self._store.unfinished(self.origin.teacher, self.origin.base_url)

    def _look_at(self, waiting: list[Batch]) -> tuple[list[BatchStatus | None], bool]:
        """Batches under way as the provider tells them, None where it cannot; whether any was finished."""
        submitted = [batch for batch in waiting if batch.batch_id]
        under_way: list[BatchStatus | None] = []
        for batch in submitted:
            self._pause(0)
            status = self._look(batch)
            if status is not None and status.ending == "failed":
                self._not_begun(batch, status, alone=len(submitted) == 1)
            elif status is not None and status.ending is not None:
                self._take_in(batch, status)
            else:
                under_way.append(status)
        return under_way, len(under_way) < len(submitted)

    def _look(self, batch: Batch) -> BatchStatus | None:
        try:
            status = read_status(self._client.batches.retrieve(str(batch.batch_id)))
            trouble = "what it says of a batch cannot be read"
        except openai.NotFoundError as error:
            raise UserError(
                f"The provider of teacher '{self.origin.teacher}' does not know batch {batch.batch_id}: is the key "
                f"that of another project? To give up all batches of this run, delete its batches.sqlite in "
                f"{self._run.path}; their requests are then asked, and paid, again."
            ) from error
        except (openai.APIError, ValueError) as error:
            if isinstance(error, openai.APIError) and not worth_repeating(error):
                raise self._refusal(error) from error
            status, trouble = None, one_line(str(error))
        if status is not None:
            self._reached = time.monotonic()
        # A day is long: the network may go and come back.
        elif time.monotonic() - self._reached > self._rules.patience_s:
            raise UserError(
                f"Teacher '{self.origin.teacher}' could not be reached for {self._rules.patience_s:g} s ({trouble}). "
                f"{self.how_to_go_on()}"
            )
        return status

    def _submit_all(self, waiting: list[Batch], under_way: int) -> bool:
        """Submit what is not submitted yet; whether there was anything."""
        submitted = 0
        for batch in waiting:
            # Held back since the provider's queue was full; one at a time passes.
            if batch.batch_id is None and not (batch.held and under_way + submitted):
                self._submit(batch)
                submitted += 1
        return submitted > 0

    def _submit(self, batch: Batch) -> None:
        """Submit a batch exactly once, whatever becomes of the provider's answers."""
        wait = self._rules.settle_s
        for attempt in range(self._teacher.retries + 1):
            self._pause(0)
            try:
                batch_id = self._find(batch)
                if batch_id is None:
                    if batch.file_id is None:
                        batch = replace(batch, file_id=self._upload(batch))
                    batch_id = self._create(batch)
                self._store.submitted(batch, batch_id)
                return
            except openai.APIError as error:
                if not worth_repeating(error):
                    raise self._refusal(error) from error
                if attempt == self._teacher.retries:
                    raise UserError(
                        f"Teacher '{self.origin.teacher}' took no batch in {attempt + 1} attempts "
                        f"({one_line(str(error))}). {self.how_to_go_on()}"
                    ) from error
            # The creation may have been heard and only its answer lost: the next turn looks for it first.
            self._pause(wait)
            wait = min(wait * 2, self._rules.longest_poll_s)

    def _find(self, batch: Batch) -> str | None:
        """The id of the batch with our mark, where the provider has it. All pages, for no order is promised."""
        for status in self._client.batches.list(limit=100):
            self._pause(0)
            if mark_of(status, _MARK) == batch.mark:
                return status.id
        return None

    def _upload(self, batch: Batch) -> str:
        with self._store.path(batch).open("rb") as file:
            uploaded = self._files.create(file=(f"{batch.mark}.jsonl", file), purpose="batch")
        self._store.uploaded(batch, uploaded.id)
        return uploaded.id

    def _create(self, batch: Batch) -> str:
        created = self._client.batches.create(
            input_file_id=str(batch.file_id),
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={_MARK: batch.mark, "run": self._run.name, "teacher": self.origin.teacher[:512]},
        )
        return created.id

    def _take_in(self, batch: Batch, status: BatchStatus) -> None:
        """Put a finished batch's answers into the ledger; ask again for what expired or failed through no fault."""
        keys = {line.key for line in self._store.items(batch)}
        results = Results()
        path = self._store.path(batch).with_suffix(".answers")
        for file_id in status.files:
            if self._download(file_id, path):
                take_in(path, self._ledger, batch.model, self._price, status.latency_s or 0.0, keys, results)
                path.unlink()
        assert status.ending is not None
        again = set()
        for line in self._store.items(batch):
            if self._ledger.has(line.key):
                results.failed.pop(line.key, None)
                continue
            if line.key in results.failed:
                continue
            reason = results.again.get(line.key) or f"no answer in a batch that {_ENDED[status.ending]}"
            if status.ending == "cancelled":
                results.failed[line.key] = Failure(reason)  # somebody's will: asked again only by another call
            elif line.attempt + 1 >= self._rules.attempts:
                results.failed[line.key] = Failure(f"{reason} ({self._rules.attempts} times)")
            else:
                again.add(line.key)
        if odd := results.odd():
            console.print(f"batch {batch.batch_id}: {odd}", markup=False, highlight=False, soft_wrap=True)
        for key, failure in results.failed.items():
            self._ledger.fail(key, failure.error, failure.fatal and not results.answered)
        self._finish(batch, status.ending, again, step=1)
        self._batches += 1
        self._answered += results.answered
        self._failed += len(results.failed)
        self._cost += results.cost

    def _download(self, file_id: str, path: Path) -> bool:
        """Fetch a file, however large, straight to disk; False where the provider no longer has it."""
        wait = self._rules.settle_s
        for attempt in range(self._teacher.retries + 1):
            try:
                with (
                    self._files.with_streaming_response.content(file_id) as response,
                    atomic(path) as temporary,
                    temporary.open("wb") as file,
                ):
                    for chunk in response.iter_bytes(1 << 20):
                        self._pause(0)
                        file.write(chunk)
                return True
            except openai.NotFoundError:
                return False
            except Exception as error:
                # In the middle of a stream the client lets its transport's own errors through.
                if not worth_repeating(error) and not type(error).__module__.startswith("httpx"):
                    raise
                if attempt == self._teacher.retries:
                    raise UserError(
                        f"The answers of a batch could not be fetched in {attempt + 1} attempts "
                        f"({one_line(str(error))}). {self.how_to_go_on()}"
                    ) from error
            self._pause(wait)
            wait = min(wait * 2, self._rules.longest_poll_s)
        return False

    def _not_begun(self, batch: Batch, status: BatchStatus, alone: bool) -> None:
        """A batch that the provider did not begin: for want of room, or for some of its lines.

        Raises:
            UserError: nothing of it can be asked, whatever is left out.
        """
        problems = status.problems
        bad = {problem.line: f"{problem.code}: {one_line(str(problem.message or ''))}" for problem in problems}
        codes = {problem.code for problem in problems}
        reason = next(iter(bad.values()), "it gave no reason")
        if _CROWDED in codes:
            # Too much even by itself: in halves, one after the other.
            most = -(-batch.requests // 2) if alone else batch.requests
            everything = {line.key for line in self._store.items(batch)}
            self._finish(batch, "crowded", everything, most=most, held=True)
            if alone and batch.requests == 1:
                raise UserError(
                    f"The provider's queue for batches has no room for a single request ({reason}). Go on later with: "
                    f"saferthoughts generate {self._run.name}"
                )
            return
        if not problems or None in bad or "model_not_found" in codes:
            self._finish(batch, "failed", set())
            raise UserError(f"Teacher '{self.origin.teacher}' refused batch {status.id}: {reason}")
        again = set()
        failed = {}
        for number, line in enumerate(self._store.items(batch), 1):
            if number in bad:
                failed[line.key] = bad[number]
            elif line.attempt + 1 >= self._rules.attempts:
                failed[line.key] = f"its batch was refused {self._rules.attempts} times: {reason}"
            else:
                again.add(line.key)
        for key, error in failed.items():
            self._ledger.fail(key, error, False)
        self._failed += len(failed)
        self._finish(batch, "failed", again - failed.keys(), step=1)

    def _finish(
        self, batch: Batch, outcome: str, again: set[str], step: int = 0, most: int | None = None, held: bool = False
    ) -> None:
        """Be done with a batch; the keys in `again` are asked anew, as their next attempt where `step` is 1."""
        lines = (replace(line, attempt=line.attempt + step) for line in self._store.items(batch) if line.key in again)
        origin = replace(self.origin, model=batch.model)
        most = self._rules.max_requests if most is None else most
        self._store.finish(batch, origin, outcome, lines, most, self._rules.max_bytes, held)

    def _show(self, shown: Meter, waiting: list[Batch], under_way: list[BatchStatus | None]) -> None:
        settled = self._answered + self._failed
        states = sorted({"not reachable" if status is None else status.state for status in under_way}) or ["submitted"]
        shown.total = settled + sum(batch.requests for batch in waiting)
        shown.words = f"{len(waiting)} batches outstanding: {', '.join(states)}" if waiting else ""
        done = settled + sum(status.settled for status in under_way if status is not None)
        shown.advance(done - shown.done, self._cost - shown.cost)

    def _pause(self, seconds: float) -> None:
        """Wait, and notice within a moment that somebody wants to stop."""
        until = time.monotonic() + seconds
        while True:
            if self._stopped():
                raise _Stopped
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _NAP_S))

    def _refusal(self, error: openai.APIError) -> UserError:
        if isinstance(error, openai.APIStatusError) and error.status_code in (404, 405, 501):
            return UserError(
                f"Teacher '{self.origin.teacher}' at {self.origin.base_url} has no Batch API (HTTP {error.status_code} "
                f"for {error.request.url.path}). Ask it request by request: --set "
                f"teachers.{self.origin.teacher}.transport=requests"
            )
        return UserError(f"Teacher '{self.origin.teacher}' refused: {one_line(str(error))}")
