"""The Distilabel steps of generation: `AskTeachers` yields planned rows as they are answered, `SplitReplies` makes
response rows of them."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilabel.steps import GeneratorStep, Step, StepInput

from pipelines.config import RunConfig, load_config
from pipelines.dispatch import PLANNED, Done, dispatch
from pipelines.ledger import Ledger, Reply
from pipelines.records import Response
from pipelines.runs import RunFolder
from pipelines.thinking import Thought, split

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput

_RESPONSE = list(Response.__dataclass_fields__)
# Stands alone in the last batch when a run was stopped before anything was done; it has no response_id.
_NOTHING: dict[str, Any] = {**dict.fromkeys(PLANNED, ""), "sample": 0, "error": "stopped"}


class AskTeachers(GeneratorStep):  # type: ignore[misc]
    """Asks for every planned response that the ledger does not hold yet; a slow answer holds up nothing.

    Reads run.yaml and prompts.parquet of the run; writes its ledger; yields planned rows, each with `error` "" or what
    finally went wrong. `endpoints` maps teacher names to base URLs. A file `.stop` in the run folder ends it early.
    """

    run: str
    endpoints: dict[str, list[str]]
    max_cost: float | None = None
    max_tokens: int | None = None

    @property
    def outputs(self) -> list[str]:
        return [*PLANNED, "error"]

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        for batch, last in batches(self._serve, self.batch_size):
            yield batch or [_NOTHING], last

    def _serve(self, done: Done) -> None:
        run = RunFolder(Path(self.run))
        asyncio.run(dispatch(run, load_config(run), self.endpoints, done, self.max_cost, self.max_tokens))


def batches(serve: Callable[[Done], None], size: int) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """What `serve`, in a thread of its own, puts into a queue, in batches, each with whether it is the last.

    Only the last batch can be empty, and only where nothing came.
    """
    done: Done = queue.Queue()

    def work() -> None:
        # openai logs every request through httpx2; at hundreds a second that costs a third of the rate.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        try:
            serve(done)
            done.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the step's own thread, which raises it
            done.put(error)

    threading.Thread(target=work, daemon=True).start()
    batch: list[dict[str, Any]] = []
    while (row := done.get()) is not None:
        if isinstance(row, BaseException):
            raise row
        # A full batch is held back until there is one row more: the last batch must not be empty, or whatever follows
        # waits for ever.
        if len(batch) >= size:
            yield batch, False
            batch = []
        batch.append(row)
    yield batch, True


class TellStories(GeneratorStep):  # type: ignore[misc]
    """Follows each row through as many requests as it takes, many rows at once; a slow answer holds up nothing.

    Reads the run's tables and run.yaml; writes its ledger; yields (id, payload) in the order of completion, the payload
    as JSON. `work` names what is done: "judge" or "repair".
    """

    run: str
    work: str
    endpoints: dict[str, list[str]]
    max_cost: float | None = None
    max_tokens: int | None = None

    @property
    def outputs(self) -> list[str]:
        return ["id", "payload"]

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        for batch, last in batches(self._serve, self.batch_size):
            yield batch or [{"id": "", "payload": ""}], last

    def _serve(self, done: Done) -> None:
        from pipelines.stories import tell_all

        asyncio.run(
            tell_all(RunFolder(Path(self.run)), self.work, self.endpoints, done, self.max_cost, self.max_tokens)
        )


class SplitReplies(Step):  # type: ignore[misc]
    """Reads each row's reply from the run's ledger and takes it apart into the columns of `Response`, plus `error`."""

    run: str

    @property
    def inputs(self) -> list[str]:
        return [*PLANNED, "error"]

    @property
    def outputs(self) -> list[str]:
        return [*_RESPONSE, "error"]

    @cached_property
    def _config(self) -> RunConfig:
        return load_config(RunFolder(Path(self.run)))

    def process(self, inputs: StepInput) -> "StepOutput":
        ledger = Ledger(Path(self.run) / "ledger.sqlite")
        yield [_response(row, ledger, self._config) for row in inputs]
        ledger.close()


def _response(row: dict[str, Any], ledger: Ledger, config: RunConfig) -> dict[str, Any]:
    reply: Reply | None = None
    if row["error"]:
        thought = Thought("", "", "none")
    elif not row["key"]:
        thought = Thought("", config.variant(row["variant"]).fixed_answer or "", "fixed")
    else:
        reply = ledger.get(row["key"])
        if reply is None:
            raise RuntimeError(f"the ledger lost {row['key']}")
        style = config.teachers[row["teacher"]].reasoning_style
        thought = split(reply.content, reply.reasoning_content, reply.reasoning, style)
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
