"""Dispatching a run's requests: as many at once as allowed, no batch, nothing asked that the ledger holds.

Reads run.yaml and prompts.parquet; writes the ledger; puts every planned row that is answered or has failed into a
queue, in the order of completion. What is queued are keys, and replies are read back from the ledger by whoever takes
them, so memory stays flat.
"""

import asyncio
import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pipelines.asking import REFUSALS_TO_STOP
from pipelines.config import RunConfig
from pipelines.engine import STOP_FILE
from pipelines.ledger import Ledger, Reply
from pipelines.limits import Budget
from pipelines.plan import Ask, plan, prompts_of
from pipelines.runs import RunFolder
from pipelines.teachers import TeacherClient, TeacherError

PLANNED = ["response_id", "prompt_id", "variant", "teacher", "model", "sampling", "sample", "key"]

# Planned rows, each with its error or ""; None at the end, an exception where dispatching itself went wrong.
Done: TypeAlias = "queue.Queue[dict[str, Any] | BaseException | None]"

# Rows that may wait to be taken before no further known answers are queued.
_MOST_WAITING = 2000


@dataclass(slots=True)
class _State:
    """What the loops of all teachers share. `halt` is set when somebody asked for a stop or all requests would fail."""

    ledger: Ledger
    done: Done
    budget: Budget
    halt: asyncio.Event = field(default_factory=asyncio.Event)
    answered: int = 0
    refused: int = 0


async def dispatch(
    run: RunFolder,
    config: RunConfig,
    endpoints: Mapping[str, Sequence[str]],
    done: Done,
    max_cost: float | None = None,
    max_tokens: int | None = None,
) -> None:
    """Ask for everything planned that is missing.

    Args:
        run: Its prompts, and its ledger.
        config: The run's configuration.
        endpoints: Base URLs of each teacher's servers; a teacher without any has answered before, or in a batch.
        done: Gets every planned row when it is answered, known already, or has finally failed.
        max_cost: US dollars that the whole run may cost, earlier calls included; None for no cap.
        max_tokens: The same in tokens of input and output.
    """
    ledger = Ledger(run.path / "ledger.sqlite")
    spent = ledger.totals()
    tokens = spent.input_tokens + spent.output_tokens
    state = _State(ledger, done, Budget(max_cost, max_tokens, spent.cost, tokens, spent.answers))
    for ask in plan(config, prompts_of(run), teacher=None):
        await _put(state, ask, "")
    watcher = asyncio.create_task(watch(run, state.halt))
    halted = asyncio.create_task(state.halt.wait())
    async with AsyncExitStack() as stack:
        # A loop a teacher: one that is slow or at its limit does not hold up another.
        loops = []
        for name in config.teachers:
            urls = endpoints.get(name)
            if not urls:
                loops.append(_known(plan(config, prompts_of(run), teacher=name), state))
                continue
            client = await stack.enter_async_context(TeacherClient(name, config.teachers[name], urls))
            loops.append(_ask_one_teacher(client, plan(config, prompts_of(run), teacher=name), state))
        everything = asyncio.gather(*loops, return_exceptions=True)
        awaited: set[asyncio.Future[Any]] = {everything, halted}
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        for task in (watcher, halted, everything):
            task.cancel()
        await asyncio.gather(everything, return_exceptions=True)
    ledger.close()
    if not state.halt.is_set():
        for result in everything.result():
            if isinstance(result, BaseException):
                raise result


async def _ask_one_teacher(client: TeacherClient, asks: Iterator[Ask], state: _State) -> None:
    async with asyncio.TaskGroup() as group:
        for ask in asks:
            if state.ledger.has(ask.key):
                await _put(state, ask, "")
                continue
            await client.gate.acquire()
            if state.halt.is_set():
                return
            if not await state.budget.admit():
                state.ledger.set_note("stopped", "budget")
                client.gate.release()
                return
            group.create_task(_ask(ask, client, state))


async def _known(asks: Iterator[Ask], state: _State) -> None:
    for ask in asks:
        error = "" if state.ledger.has(ask.key) else state.ledger.failure(ask.key) or "not asked in this call"
        await _put(state, ask, error)


async def _ask(ask: Ask, client: TeacherClient, state: _State) -> None:
    error = ""
    reply: Reply | None = None
    try:
        reply = await client.ask(ask.messages, json.loads(ask.sampling))
        state.ledger.put(ask.key, ask.model, reply)
        state.answered += 1
    except TeacherError as failure:
        error = str(failure)
        state.refused += failure.refused
        fatal = failure.fatal or (state.answered == 0 and state.refused >= REFUSALS_TO_STOP)
        state.ledger.fail(ask.key, error, fatal)
        if fatal:
            state.halt.set()
    finally:
        client.gate.release()
        await state.budget.settle(reply)
    await _put(state, ask, error)


async def _put(state: _State, ask: Ask, error: str) -> None:
    await room(state.done)
    state.done.put({**{name: getattr(ask, name) for name in PLANNED}, "error": error})


async def room(done: Done) -> None:
    """Wait until what is queued was taken: known answers come far faster, and all of them would wait in memory."""
    while done.qsize() > _MOST_WAITING:
        await asyncio.sleep(0.01)


async def watch(run: RunFolder, halt: asyncio.Event) -> None:
    """Set `halt` once somebody asks for a stop by the run's stop file."""
    while not (run.path / STOP_FILE).exists():
        await asyncio.sleep(0.2)
    halt.set()
