"""The Distilabel steps of generation.

`AskTeachers` dispatches the requests itself and yields them in the order of completion, so a slow answer holds up
nothing; what it yields are keys, and replies are read back from the ledger, so memory stays flat. `SplitReplies`
turns replies into response rows.
"""

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from distilabel.steps import GeneratorStep, Step, StepInput

from pipelines.config import load_config
from pipelines.engine import STOP_FILE
from pipelines.ledger import Ledger, Reply
from pipelines.plan import Ask, plan
from pipelines.records import Prompt, Response, from_table
from pipelines.runs import RunFolder
from pipelines.teachers import TeacherClient, TeacherError
from pipelines.thinking import Thought, split
from pipelines.variant import variant

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput

# Planned rows that are answered or have failed; None at the end, an exception where dispatching itself went wrong.
Done: TypeAlias = "queue.Queue[dict[str, Any] | BaseException | None]"
_PLANNED = ["response_id", "prompt_id", "variant", "teacher", "model", "sampling", "sample", "key"]
_RESPONSE = list(Response.__dataclass_fields__)
# Stands alone in the last batch when a run was stopped before anything was done; it has no response_id.
_NOTHING: dict[str, Any] = {**dict.fromkeys(_PLANNED, ""), "sample": 0, "error": "stopped"}


class AskTeachers(GeneratorStep):  # type: ignore[misc]
    """Asks for every planned response that the ledger does not hold yet.

    Reads run.yaml and prompts.parquet of the run; writes its ledger; yields planned rows, each with `error` "" or what
    finally went wrong. `endpoints` maps teacher names to base URLs. A file `.stop` in the run folder ends it early.
    """

    run: str
    endpoints: dict[str, str]

    @property
    def outputs(self) -> list[str]:
        return [*_PLANNED, "error"]

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        done: Done = queue.Queue()
        threading.Thread(target=self._serve, args=(done,), daemon=True).start()
        batch: list[dict[str, Any]] = []
        while (row := done.get()) is not None:
            if isinstance(row, BaseException):
                raise row
            # One row is held back: the last batch must not be empty, or downstream waits for ever.
            if len(batch) >= self.batch_size:
                yield batch, False
                batch = []
            batch.append(row)
        yield batch or [_NOTHING], True

    def _serve(self, done: Done) -> None:
        # openai logs every request through httpx2; at hundreds a second that costs a third of the rate.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        try:
            asyncio.run(self._dispatch(done))
            done.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the step's own thread, which raises it
            done.put(error)

    async def _dispatch(self, done: Done) -> None:
        run = RunFolder(Path(self.run))
        config = load_config(run)
        prompts = from_table(Prompt, run.read("prompts"))
        ledger = Ledger(run.path / "ledger.sqlite")
        for ask in plan(config, prompts, teacher=None):
            done.put(_planned(ask, ""))
        # Set when somebody asked for a stop, or when every further request would fail.
        halt = asyncio.Event()
        watcher = asyncio.create_task(_watch(run.path / STOP_FILE, halt))
        halted = asyncio.create_task(halt.wait())
        async with AsyncExitStack() as stack:
            # A loop a teacher: one that is slow or at its limit does not hold up another.
            loops = [
                asyncio.create_task(
                    self._ask_one_teacher(
                        await stack.enter_async_context(TeacherClient(name, config.teachers[name], url)),
                        plan(config, prompts, teacher=name),
                        ledger,
                        done,
                        halt,
                    )
                )
                for name, url in self.endpoints.items()
            ]
            everything = asyncio.gather(*loops, return_exceptions=True)
            awaited: set[asyncio.Future[Any]] = {everything, halted}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            for task in (watcher, halted, everything):
                task.cancel()
            await asyncio.gather(everything, return_exceptions=True)
        ledger.close()
        if not halt.is_set():
            for result in everything.result():
                if isinstance(result, BaseException):
                    raise result

    async def _ask_one_teacher(
        self, client: TeacherClient, asks: Iterator[Ask], ledger: Ledger, done: Done, halt: asyncio.Event
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                if ledger.get(ask.key) is not None:
                    done.put(_planned(ask, ""))
                    continue
                await client.gate.acquire()
                if halt.is_set():
                    return
                group.create_task(_ask(ask, client, ledger, done, halt))


async def _watch(stop: Path, halt: asyncio.Event) -> None:
    while not stop.exists():
        await asyncio.sleep(0.2)
    halt.set()


async def _ask(ask: Ask, client: TeacherClient, ledger: Ledger, done: Done, halt: asyncio.Event) -> None:
    error = ""
    try:
        reply = await client.ask(ask.messages, json.loads(ask.sampling))
        ledger.put(ask.key, ask.model, reply)
    except TeacherError as failure:
        error = str(failure)
        ledger.fail(ask.key, error, failure.fatal)
        if failure.fatal:
            halt.set()
    finally:
        client.gate.release()
    done.put(_planned(ask, error))


def _planned(ask: Ask, error: str) -> dict[str, Any]:
    return {**{name: getattr(ask, name) for name in _PLANNED}, "error": error}


class SplitReplies(Step):  # type: ignore[misc]
    """Reads each row's reply from the run's ledger and takes it apart into the columns of `Response`, plus `error`."""

    run: str

    @property
    def inputs(self) -> list[str]:
        return [*_PLANNED, "error"]

    @property
    def outputs(self) -> list[str]:
        return [*_RESPONSE, "error"]

    def process(self, inputs: StepInput) -> "StepOutput":
        ledger = Ledger(Path(self.run) / "ledger.sqlite")
        yield [_response(row, ledger) for row in inputs]
        ledger.close()


def _response(row: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    reply: Reply | None = None
    if row["error"]:
        thought = Thought("", "", "none")
    elif not row["key"]:
        thought = Thought("", variant(row["variant"]).fixed_answer or "", "fixed")
    else:
        reply = ledger.get(row["key"])
        if reply is None:
            raise RuntimeError(f"the ledger lost {row['key']}")
        thought = split(reply.content, reply.reasoning_content, reply.reasoning)
    return {
        "response_id": row["response_id"],
        "prompt_id": row["prompt_id"],
        "variant": row["variant"],
        "teacher": row["teacher"],
        "model": row["model"],
        "sampling": row["sampling"],
        "sample": row["sample"],
        "attempt": 0,
        "parent_id": "",
        # The ends of both are white space of the server's making.
        "reasoning": thought.reasoning.strip(),
        "answer": thought.answer.strip(),
        "reasoning_source": thought.source,
        "finish_reason": reply.finish_reason if reply else ("" if row["error"] else "stop"),
        "input_tokens": reply.input_tokens if reply else 0,
        "output_tokens": reply.output_tokens if reply else 0,
        "latency_s": reply.latency_s if reply else 0.0,
        "cost": reply.cost if reply else None,
        "request_key": row["key"],
        "error": row["error"],
    }
