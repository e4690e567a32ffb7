"""Judging and repair as Distilabel runs: rows followed through as many requests as each takes, many at once.

`run_stories` is called by a stage; `tell_all` runs inside the step `steps.TellStories`. Reads the run's tables and
run.yaml; writes its ledger; every finished row is handed back with what it led to.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.asking import Asker, Halted
from pipelines.config import RunConfig, Teacher, load_config
from pipelines.dispatch import Done, room, watch
from pipelines.engine import muted_imports, run_pipeline
from pipelines.errors import Incomplete, Interrupted, UserError
from pipelines.ledger import Ledger
from pipelines.limits import Budget, Caps
from pipelines.open_endpoints import open_endpoints
from pipelines.progress import meter
from pipelines.runs import RunFolder
from pipelines.teachers import TeacherClient, api_key

_BATCH = 100
# Rows under way at once for each request that may be: most rows wait for one request at a time.
_ROWS_PER_REQUEST = 2


@dataclass(frozen=True, slots=True)
class Story:
    """One row and what is to be done with it: `tell` asks what it needs and gives what came of it, as JSON values."""

    id: str
    tell: Callable[[Asker], Awaitable[dict[str, Any]]]


# Where the stories of each kind of work come from.
Source = Callable[[RunFolder, RunConfig], Iterator[Story]]


def asked_teachers(config: RunConfig, work: str) -> dict[str, Teacher]:
    """The entries that a kind of work asks, by name."""
    names = {config.judges[name].teacher for name in config.judging.judges}
    judges = {name: teacher for name, teacher in config.judge_teachers.items() if name in names}
    return judges if work == "judge" else {**config.teachers, **judges}


def _source(work: str) -> Source:
    if work == "judge":
        from pipelines import judge

        return judge.stories
    from pipelines import repair

    return repair.stories


async def tell_all(
    run: RunFolder,
    work: str,
    endpoints: Mapping[str, list[str]],
    done: Done,
    max_cost: float | None,
    max_tokens: int | None,
) -> None:
    """Tell every story of a kind of work; what came of each goes into the queue as it is finished."""
    config = load_config(run)
    ledger = Ledger(run.path / "ledger.sqlite")
    spent = ledger.totals()
    tokens = spent.input_tokens + spent.output_tokens
    budget = Budget(max_cost, max_tokens, spent.cost, tokens, spent.answers)
    async with AsyncExitStack() as stack:
        clients = {}
        for name, teacher in asked_teachers(config, work).items():
            if endpoints.get(name):
                clients[name] = await stack.enter_async_context(TeacherClient(name, teacher, endpoints[name]))
        asker = Asker(work, ledger, clients, budget)
        telling = asyncio.create_task(_tell(_source(work)(run, config), asker, done, _at_once(config, work)))
        watcher = asyncio.create_task(watch(run, asker.halt))
        halted = asyncio.create_task(asker.halt.wait())
        await asyncio.wait({telling, halted}, return_when=asyncio.FIRST_COMPLETED)
        for task in (watcher, halted, telling):
            task.cancel()
        result = (await asyncio.gather(telling, watcher, halted, return_exceptions=True))[0]
        if isinstance(result, Exception) and not asker.halt.is_set():
            raise result
    ledger.close()


def _at_once(config: RunConfig, work: str) -> int:
    return _ROWS_PER_REQUEST * sum(
        teacher.in_flight * max(len(teacher.urls), 1) for teacher in asked_teachers(config, work).values()
    )


async def _tell(stories: Iterator[Story], asker: Asker, done: Done, at_once: int) -> None:
    free = asyncio.Semaphore(at_once)

    async def tell(story: Story) -> None:
        try:
            payload = await story.tell(asker)
            done.put({"id": story.id, "payload": json.dumps(payload)})
            told.append(story.id)
        except Halted:
            pass
        finally:
            free.release()

    told: list[str] = []
    async with asyncio.TaskGroup() as group:
        noting = asyncio.create_task(_note_progress(asker, told))
        for story in stories:
            await free.acquire()
            await room(done)
            if asker.halt.is_set() or asker.spent:
                break
            group.create_task(tell(story))
    noting.cancel()


async def _note_progress(asker: Asker, told: list[str]) -> None:
    while True:
        asker.note("told", str(len(told)))
        await asyncio.sleep(0.5)


def run_stories(
    run: RunFolder, config: RunConfig, work: str, total: int, caps: Caps, keep: Callable[[Iterator[Any]], None]
) -> None:
    """Run a kind of work over its rows.

    Args:
        run: The run folder.
        config: Its configuration.
        work: "judge" or "repair".
        total: How many stories there are.
        caps: Budget of the run.
        keep: Called once, with what came of every story, where none is missing; it writes the stage's tables.

    Raises:
        UserError: a key is missing, or a teacher refuses every request.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    teachers = asked_teachers(config, work)
    _check(teachers, caps)
    with muted_imports():
        from pipelines.steps import TellStories
    ledger = Ledger(run.path / "ledger.sqlite")
    ledger.forget_failures()
    ledger.forget_uses(work)
    before = ledger.totals().answers

    def take(pipeline_yaml: Path, parts: list[Path]) -> None:
        # Tables are whole or as they were: a stage that follows must not take a part for all.
        if ledger.fatal_error() is None and ledger.note("stopped") is None:
            keep(_payloads(parts, total))

    with ExitStack() as stack:
        urls = open_endpoints(run, teachers, tuple(teachers), config.seed, stack)
        folder = str(run.path.absolute())

        def add_steps() -> None:
            TellStories(name=work, batch_size=_BATCH, run=folder, work=work, endpoints=urls, **asdict(caps))

        stack.enter_context(_shown(ledger, work, total))
        stopped = run_pipeline(run.path, work, add_steps, take)
    fatal, reason, totals = ledger.fatal_error(), ledger.note("stopped"), ledger.totals()
    ledger.close()
    asked = totals.answers - before
    again = f"saferthoughts {work} {run.name}"
    if fatal:
        raise UserError(f"Stopped, since every request would fail: {fatal}")
    if stopped:
        raise Interrupted(f"Stopped. {asked} answers of this call are kept in the ledger; go on with: {again}")
    if reason == "budget":
        raise Incomplete(
            f"Stopped at the budget, with ${totals.cost:.2f} and {totals.input_tokens + totals.output_tokens} tokens "
            f"spent by the run. What came back is kept in the ledger; go on with a higher cap: {again} {caps.doubled()}"
        )


def _check(teachers: Mapping[str, Teacher], caps: Caps) -> None:
    for name, teacher in teachers.items():
        api_key(name, teacher)
        if caps.max_cost is not None and teacher.price is None and not teacher.embedded:
            raise UserError(
                f"--max-cost needs prices, and '{name}' has none. Give it one in your teachers.yaml (US dollars per "
                "million tokens) or cap tokens with --max-tokens."
            )


def _payloads(parts: Collection[Path], total: int) -> Iterator[Any]:
    """What came of every story, in the order of their ids."""
    rows: list[tuple[str, str]] = []
    for part in parts:
        table = pq.read_table(part, columns=["id", "payload"])
        rows += zip(table["id"].to_pylist(), table["payload"].to_pylist(), strict=True)
    rows = sorted(row for row in rows if row[0])
    if len(rows) != total:
        raise RuntimeError(f"{total} rows were to be worked on, {len(rows)} came back")
    return (json.loads(payload) for _, payload in rows)


@contextmanager
def _shown(ledger: Ledger, work: str, total: int) -> Iterator[None]:
    """Progress by what the step notes in the ledger."""
    start = ledger.totals()
    ended = threading.Event()
    with meter(work, total, "rows") as shown:

        def poll() -> None:
            while not ended.wait(0.5):
                now = ledger.totals()
                told = int(ledger.note("told") or 0)
                lost = f", {now.failures} failed" if now.failures else ""
                shown.note(f"{now.answers - start.answers} requests{lost}")
                shown.advance(told - shown.done, now.cost - start.cost - shown.cost)

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
            shown.advance(total - shown.done)
        finally:
            ended.set()
            thread.join()
