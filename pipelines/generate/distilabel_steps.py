"""The Distilabel steps of generation: `AskTeachers` yields planned rows as they end, `SplitReplies` makes response rows
of them.

`AskTeachers` is the request runner (`runner/`) as a step: it yields in the order of completion, and a slow answer holds
up nothing. What it passes on are keys, and replies are read back from the ledger, so that memory stays flat.
"""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilabel.steps import GeneratorStep, Step, StepInput

from pipelines.generate.link import Link
from pipelines.generate.plan import Ask, plan, prompts_of
from pipelines.records import Response
from pipelines.runner.asker import Asker
from pipelines.runner.outcomes import Control, Ending, NotAttempted, Outcome, Tally
from pipelines.runner.scheduler import Lane, in_thread, run_rows, unusable
from pipelines.runner.session import asking
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.ledger import Ledger, Reply
from pipelines.thinking import Thought, split

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput

PLANNED = ["response_id", "prompt_id", "variant", "teacher", "model", "sampling", "sample", "key"]
_ENDED = ["error", "permanent"]
_RESPONSE = list(Response.__dataclass_fields__)
# Stands alone in the last batch when a run was stopped before anything was done; it has no response_id.
_NOTHING: dict[str, Any] = {**dict.fromkeys(PLANNED, ""), "sample": 0, "error": "stopped", "permanent": False}
# Rows in a lane that need no request.
_UNASKED_AT_ONCE = 1


class AskTeachers(GeneratorStep):  # type: ignore[misc]
    """Asks for every planned response that the ledger does not hold yet; a slow answer holds up nothing.

    Reads run.yaml and prompts.parquet of the run; writes its ledger; yields planned rows, each with `error` "" or what
    finally went wrong, and whether that is `permanent`. `endpoints` maps teacher names to base URLs. `link` is where
    the command listens for progress, "" for nowhere.
    """

    run: str
    endpoints: dict[str, list[str]]
    max_cost: float | None = None
    max_tokens: int | None = None
    link: str = ""

    @property
    def outputs(self) -> list[str]:
        return [*PLANNED, *_ENDED]

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        for batch, last in in_batches(self._rows(), self.batch_size):
            yield batch or [_NOTHING], last

    def _rows(self) -> Iterator[dict[str, Any]]:
        # openai logs every request through httpx2; at hundreds a second that costs a third of the rate.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        control = Control()
        link = Link(self.link) if self.link else None
        try:
            for outcomes in in_thread(lambda: self._outcomes(control, link), control):
                for outcome in outcomes:
                    if outcome.state != "not attempted" or control.ending is None:
                        yield _planned(outcome)
        except Exception as error:  # noqa: BLE001 - the command is told as of every other end; Distilabel would wait
            reason = unusable(error) or " ".join(f"{type(error).__name__}: {error}".split())[:300]
            control.end(Ending("broken", reason))
        finally:
            if link is not None:
                if control.ending is not None:
                    link.ended(control.ending)
                link.close()

    async def _outcomes(self, control: Control, link: Link | None) -> AsyncIterator[list[Outcome[Ask, None]]]:
        run = RunFolder(Path(self.run))
        config = load_config(run)

        def progress(tally: Tally, error: str) -> None:
            if link is not None:
                link.progress(tally, error)

        limits = (self.max_cost, self.max_tokens)
        async with asking(run, "", config.teachers, self.endpoints, *limits, control, progress) as asker:
            lanes = [Lane(plan(config, prompts_of(run), teacher=None), _UNASKED_AT_ONCE)]
            for name, teacher in config.teachers.items():
                at_once = teacher.in_flight * len(self.endpoints.get(name, ())) or _UNASKED_AT_ONCE
                lanes.append(Lane(plan(config, prompts_of(run), teacher=name), at_once))
            async for outcomes in run_rows(lanes, lambda ask: _ask(ask, asker), control):
                yield outcomes


async def _ask(ask: Ask, asker: Asker) -> None:
    if not ask.key:
        return
    if not asker.can_ask(ask.teacher):
        # Its answers are all known, or came in a batch.
        if asker.known(ask.key) is None:
            raise NotAttempted(asker.earlier_failure(ask.key) or "not asked in this call")
        return
    await asker.ask(ask.teacher, ask.messages, json.loads(ask.sampling), ask.sample)


def _planned(outcome: Outcome[Ask, None]) -> dict[str, Any]:
    row = {name: getattr(outcome.row, name) for name in PLANNED}
    return {**row, "error": outcome.reason, "permanent": outcome.permanent}


def in_batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Rows in batches, each with whether it is the last.

    Only the last batch can be empty, and only where nothing came: whatever follows would wait for ever.
    """
    batch: list[dict[str, Any]] = []
    for row in rows:
        if len(batch) >= size:
            yield batch, False
            batch = []
        batch.append(row)
    yield batch, True


class SplitReplies(Step):  # type: ignore[misc]
    """Reads each row's reply from the run's ledger and takes it apart into the columns of `Response`, plus `error` and
    `permanent`. A row that cannot be taken apart gets an error; the others of its batch do not."""

    run: str

    @property
    def inputs(self) -> list[str]:
        return [*PLANNED, *_ENDED]

    @property
    def outputs(self) -> list[str]:
        return [*_RESPONSE, *_ENDED]

    @cached_property
    def _config(self) -> RunConfig:
        return load_config(RunFolder(Path(self.run)))

    def process(self, inputs: StepInput) -> "StepOutput":
        ledger = Ledger(Path(self.run) / "ledger.sqlite")
        yield [_whole(row, ledger.get, self._config) for row in inputs]
        ledger.close()


def _whole(row: dict[str, Any], reply_of: Callable[[str], Reply | None], config: RunConfig) -> dict[str, Any]:
    """The row as a response, or with an error where it cannot be one: one bad row would empty its whole batch."""
    try:
        return _response(row, reply_of, config)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
        reason = " ".join(f"the reply cannot be read: {type(error).__name__}: {error}".split())[:300]
        return _response({**row, "error": reason}, reply_of, config)


def _response(row: dict[str, Any], reply_of: Callable[[str], Reply | None], config: RunConfig) -> dict[str, Any]:
    reply: Reply | None = None
    if row["error"]:
        thought = Thought("", "", "none")
    elif not row["key"]:
        thought = Thought("", config.variant(row["variant"]).fixed_answer or "", "fixed")
    else:
        reply = reply_of(row["key"])
        if reply is None:
            return _response({**row, "error": "the ledger lost the reply"}, reply_of, config)
        style = config.teachers[row["teacher"]].reasoning_style
        thought = split(reply.content, reply.reasoning_content, reply.reasoning, style)
    return {
        **{name: row[name] for name in PLANNED if name != "key"},
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
        "permanent": row["permanent"],
    }
