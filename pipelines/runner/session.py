"""One call's session of requests: ledger, clients and budget around an `Asker`, and a stage that is nothing but rows.

Generation uses `asking`; judging and repair, whose results fit into memory, use `run_stage`. Reads and writes the run's
ledger.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic

from filelock import FileLock, Timeout

from pipelines.command_line import typed_command
from pipelines.errors import Incomplete, Interrupted, UserError
from pipelines.progress import Meter, console, meter
from pipelines.runner.asker import Asker, Progress
from pipelines.runner.estimate import Load
from pipelines.runner.forecast import Forecast
from pipelines.runner.options import Caps, Engine, RequestOptions
from pipelines.runner.outcomes import Control, Ending, Outcome, ResultT, RowT, Tally
from pipelines.runner.scheduler import Lane, in_thread, run_rows
from pipelines.runner.stop import signals_end
from pipelines.runs import RunFolder
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import TeacherClient, api_key
from pipelines.teachers.group_commit import GroupCommit
from pipelines.teachers.launch import open_endpoints
from pipelines.teachers.ledger import PREFLIGHT, Ledger, Totals
from pipelines.teachers.limits import Budget

# Rows under way at once for each request that may be: one asks while another is written down.
ROWS_PER_REQUEST = 2
# So many different errors are shown as they happen; the others are counted.
_ERRORS_SHOWN = 3
_SHOWN_EVERY_S = 0.1

# Makes a teacher's client of its name, its entry and where it answers.
ClientMaker = Callable[[str, Teacher, Sequence[str]], TeacherClient]


@contextmanager
def at_work(run: RunFolder, stage: str) -> Iterator[None]:
    """One call of a stage on a run at a time.

    Raises:
        UserError: another process is at it.
    """
    lock = FileLock(run.path / f".{stage}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another process is at work on {run.path} ({stage}). Wait for it, or stop it first."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def clients_of(engine: Engine, run: RunFolder) -> Iterator[ClientMaker]:
    """What makes the clients of a call: requests are made by this process, or by workers on Ray.

    Raises:
        UserError: no Ray cluster is there, or none of its nodes can make requests.
    """
    if engine.name == "local":
        yield TeacherClient
        return
    from pipelines.runner.ray_client import RayClient, ray_workers

    with ray_workers(engine, run.path) as workers:
        yield partial(RayClient, workers)


@asynccontextmanager
async def asking(
    ledger_file: Path,
    stage: str,
    teachers: Mapping[str, Teacher],
    endpoints: Mapping[str, Sequence[str]],
    options: RequestOptions,
    control: Control,
    progress: Progress,
    client: ClientMaker = TeacherClient,
) -> AsyncIterator[Asker]:
    """An asker of teachers, while the block runs.

    Args:
        ledger_file: What is asked first, and kept into.
        stage: As `Asker` has it.
        endpoints: Base URLs of each teacher's servers; one without any is not asked.
        options: Budget of the whole run, earlier calls included, and ledgers of others.
        control: Ends the requests early.
        progress: Called after each request.
        client: What makes the clients.
    """
    ledger = Ledger(ledger_file)
    try:
        for other in options.reuse:
            ledger.borrow(other)
        spent = ledger.totals()
        tokens = spent.input_tokens + spent.output_tokens
        # First questions are paid for, and too short to go by.
        budget = Budget(
            options.caps.max_cost,
            options.caps.max_tokens,
            spent.cost,
            tokens,
            spent.answers - ledger.asked_for(PREFLIGHT),
        )
        async with AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(client(name, teacher, endpoints[name]))
                for name, teacher in teachers.items()
                if endpoints.get(name)
            }
            kept = GroupCommit(ledger_file)
            stack.callback(kept.close)
            yield Asker(stage, ledger, kept, clients, budget, control, progress)
    finally:
        ledger.close()


@dataclass(frozen=True, slots=True)
class StageWork(Generic[RowT, ResultT]):
    """A stage as rows: where they come from, how many there are, what is done with each, and what that will take.
    What is worked on as one may be several rows; `size` says how many."""

    stage: str
    rows: Iterable[RowT]
    total: int
    work: Callable[[RowT, Asker], Awaitable[ResultT]]
    teachers: Mapping[str, Teacher]
    expected: Load = Load()  # noqa: RUF009 - it cannot change
    size: Callable[[RowT], int] = lambda _: 1


def run_stage(run: RunFolder, stage: StageWork[RowT, ResultT], seed: int, options: RequestOptions) -> list[ResultT]:
    """Work on every row of a stage.

    Args:
        seed: The rehearsal teacher's, where it is asked.

    Returns:
        A result for each row, in the order of completion.

    Raises:
        UserError: a key is missing, a teacher refuses every request, or nothing more can be kept.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    check_teachers(stage.teachers, options.caps)
    control = Control()
    with ExitStack() as stack:
        stack.enter_context(at_work(run, stage.stage))
        ledger = Ledger(run.path / "ledger.sqlite")
        stack.callback(ledger.close)
        ledger.forget_failures()
        ledger.forget_uses(stage.stage)
        before, aside = ledger.totals(), len(ledger.set_aside())
        urls = open_endpoints(run, stage.teachers, tuple(stage.teachers), seed, stack)
        at_once = ROWS_PER_REQUEST * sum(item.in_flight * max(len(item.urls), 1) for item in stage.teachers.values())
        # Not the other way round: what is said of a cluster would fall into the progress display.
        client = stack.enter_context(clients_of(options.engine, run))
        shown = stack.enter_context(shown_rows(stage.stage, stage.total, stage.expected))
        session = asking(ledger.path, stage.stage, stage.teachers, urls, options, control, shown, client)
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        with signals_end(control):
            batches = in_thread(lambda: _outcomes(stage, session, at_once, control), control)
            results, done, failed = _gathered(batches, stage.size)
        again = f"saferthoughts {stage.stage} {run.name}"
        raise_if_ended(control.ending, before, ledger.totals(), options.caps, again)
        say_damaged(ledger, aside)
    if done != stage.total:
        reason = f" (the first: {failed[0]})" if failed else ""
        raise Incomplete(
            f"{stage.total - done} of {stage.total} rows could not be worked on{reason}. What was answered is "
            f"kept; try those again: {typed_command(again)}"
        )
    return results


async def _outcomes(
    stage: StageWork[RowT, ResultT], session: AbstractAsyncContextManager[Asker], at_once: int, control: Control
) -> AsyncIterator[list[Outcome[RowT, ResultT]]]:
    async with session as asker:

        async def worked(row: RowT) -> ResultT:
            result = await stage.work(row, asker)
            for _ in range(stage.size(row)):
                asker.row_ended()
            return result

        async for batch in run_rows([Lane(stage.rows, at_once)], worked, control):
            yield batch


def _gathered(
    batches: Iterable[list[Outcome[RowT, ResultT]]], size: Callable[[RowT], int]
) -> tuple[list[ResultT], int, list[str]]:
    """The results, how many rows they are of, and why the others failed."""
    results: list[ResultT] = []
    failed: list[str] = []
    done = 0
    for batch in batches:
        for outcome in batch:
            if outcome.state == "done":
                results.append(outcome.result)  # type: ignore[arg-type]
                done += size(outcome.row)
            elif outcome.state == "failed":
                failed.append(outcome.reason)
    return results, done, failed


def check_teachers(teachers: Mapping[str, Teacher], caps: Caps) -> None:
    """Refuse before anything is asked where a key is missing, or a cap in dollars meets a teacher without prices."""
    for name, teacher in teachers.items():
        api_key(name, teacher)
        if caps.max_cost is not None and teacher.price is None and not teacher.embedded:
            raise UserError(
                f"--max-cost needs prices, and '{name}' has none. Give it one in your teachers.yaml (US dollars per "
                "million tokens) or cap tokens with --max-tokens."
            )


def raise_if_ended(ending: Ending | None, before: Totals, now: Totals, caps: Caps, again: str) -> None:
    """Raise what a stage that ended early tells its user; nothing where it did not.

    Args:
        ending: Why, if it did.
        before: The ledger's totals when the call began.
        now: The same now.
        caps: The run's budget.
        again: The command that goes on, where the user's own is not known.
    """
    if ending is None:
        return
    kept = f"{now.answers - before.answers} answers of this call are kept in the ledger"
    if ending.kind == "signal":
        raise Interrupted(f"Stopped. {kept}; go on with: {typed_command(again)}")
    if ending.kind == "budget":
        raise Incomplete(
            f"Stopped at the budget, with ${now.cost:.2f} and {now.input_tokens + now.output_tokens} tokens spent by "
            f"the run. {kept}; go on with a higher cap: {typed_command(again, caps.doubled())}"
        )
    if ending.kind == "fatal":
        raise UserError(f"Stopped, since every request would fail: {ending.text}")
    raise UserError(f"{ending.text} {kept}; then go on with: {typed_command(again)}")


def say_damaged(ledger: Ledger, before: int) -> None:
    """Name answers that could not be read and were set aside, beyond the first `before` of earlier calls."""
    for key, reason in ledger.set_aside()[before : before + _ERRORS_SHOWN]:
        console.print(
            f"The answer {key} in {ledger.path} could not be read ({reason}); it is set aside and asked for again.",
            soft_wrap=True,
        )  # fmt: skip


@contextmanager
def shown_rows(stage: str, total: int, expected: Load) -> Iterator[Progress]:
    """Progress in rows, with what all will take; gives what takes each tally."""
    forecast = Forecast(expected, total)

    def words(tally: Tally) -> str:
        return ", ".join(filter(None, (f"{tally.answered} requests", forecast.words(tally, tally.rows))))

    with meter(stage, total, "rows") as shown, shown_by(shown, lambda tally: tally.rows, words) as show:
        yield show


@contextmanager
def shown_answers(stage: str, total: int, expected: Load) -> Iterator[Progress]:
    """Progress in answers, with what all will take; failures are counted beside them."""
    forecast = Forecast(expected, total)

    def words(tally: Tally) -> str:
        return forecast.words(tally, tally.answered + tally.failed)

    with meter(stage, total, "answers") as shown, shown_by(shown, lambda tally: tally.answered, words) as show:
        yield show


@contextmanager
def shown_by(shown: Meter, done: Callable[[Tally], int], words: Callable[[Tally], str]) -> Iterator[Progress]:
    """What puts a tally on a meter, a few times a second and at the end; and the first few errors above it, with their
    text."""
    errors: set[str] = set()
    last, due = Tally(), 0.0

    def put() -> None:
        failed = f"{last.failed} failed" if last.failed else ""
        shown.words = ", ".join(part for part in (words(last), failed) if part)
        shown.advance(done(last) - shown.done, last.cost - shown.cost)

    def show(tally: Tally, error: str) -> None:
        nonlocal last, due
        last = tally
        if error and error not in errors and len(errors) < _ERRORS_SHOWN:
            errors.add(error)
            shown.say(f"{shown.label}: a request failed: {error}")
        if (now := time.monotonic()) >= due:
            due = now + _SHOWN_EVERY_S
            put()

    try:
        yield show
    finally:
        put()
