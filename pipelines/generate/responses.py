"""A run's responses as they end: every planned one asked for by the request runner and taken apart.

Reads run.yaml and prompts.parquet; writes the ledger. A slow answer holds up nothing: rows come in the order of
completion, and memory does not grow with their number.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from pipelines.generate.plan import Ask, plan, prompts_of
from pipelines.records import Response
from pipelines.runner.asker import Asker, Progress
from pipelines.runner.options import RequestOptions
from pipelines.runner.outcomes import Control, NotAttempted, Outcome
from pipelines.runner.scheduler import Lane, in_thread, run_rows
from pipelines.runner.session import ROWS_PER_REQUEST, ClientMaker, asking
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.teachers.client import TeacherClient
from pipelines.teachers.reply import Reply
from pipelines.thinking import Thought, split

# A row is a `Response` and how it ended: `error` is "" or what finally went wrong, and whether that is `permanent`.
COLUMNS = [*Response.__dataclass_fields__, "error", "permanent"]
_PLANNED = ("response_id", "prompt_id", "variant", "teacher", "model", "sampling", "sample")
_planned = attrgetter(*_PLANNED)
# Rows at once in a lane that needs no request.
_UNASKED_AT_ONCE = 1


def responses(
    run: RunFolder,
    config: RunConfig,
    endpoints: Mapping[str, Sequence[str]],
    options: RequestOptions,
    control: Control,
    progress: Progress,
    client: ClientMaker = TeacherClient,
) -> Iterator[dict[str, Any]]:
    """Every planned response that was attempted, as a row of `COLUMNS`, in the order of completion.

    Args:
        run: Its prompts are planned, and its ledger is asked first.
        endpoints: Base URLs of each teacher's servers; one without any is not asked.
        options: How requests are made.
        control: Ends the requests early; rows that were not attempted then do not come.
        progress: Called after each request.
        client: What makes the clients.

    Raises:
        UserError: a table or the ledger cannot be read.
    """

    async def outcomes() -> AsyncIterator[list[Outcome[Ask, Reply | None]]]:
        async with asking(
            run.path / "ledger.sqlite", "", config.teachers, endpoints, options, control, progress, client
        ) as asker:
            lanes = []
            if any(config.teacher_of(name) is None for name in (*config.variants, config.benign_variant)):
                lanes.append(Lane(plan(config, prompts_of(run), teacher=None), _UNASKED_AT_ONCE))
            for name, teacher in config.teachers.items():
                at_once = ROWS_PER_REQUEST * teacher.in_flight * len(endpoints.get(name, ())) or _UNASKED_AT_ONCE
                lanes.append(Lane(plan(config, prompts_of(run), teacher=name), at_once))
            async for batch in run_rows(lanes, lambda ask: _ask(ask, asker), control):
                yield batch

    for batch in in_thread(outcomes, control):
        for outcome in batch:
            if outcome.state != "not attempted" or control.ending is None:
                yield _row(outcome, config)


async def _ask(ask: Ask, asker: Asker) -> Reply | None:
    if not ask.key:
        return None
    if asker.can_ask(ask.teacher):
        return await asker.ask(ask.teacher, ask.messages, ask.fields, ask.sample, key=ask.key)
    # Its answers are all known, or came in a batch.
    if (known := asker.known(ask.key)) is None:
        raise NotAttempted(asker.earlier_failure(ask.key) or "not asked in this call")
    return known


def _row(outcome: Outcome[Ask, Reply | None], config: RunConfig) -> dict[str, Any]:
    """An outcome as a row; a reply that cannot be taken apart is that row's error."""
    reason, thought = outcome.reason, Thought("", "", "none")
    if not reason:
        try:
            thought = _thought(outcome.row, outcome.result, config)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
            reason = " ".join(f"the reply cannot be read: {type(error).__name__}: {error}".split())[:300]
    reply = None if reason else outcome.result
    return {
        **dict(zip(_PLANNED, _planned(outcome.row), strict=True)),
        "attempt": 0,
        "parent_id": "",
        # The ends of both are white space of the server's making.
        "reasoning": thought.reasoning.strip(),
        "answer": thought.answer.strip(),
        "reasoning_source": thought.source,
        "finish_reason": reply.finish_reason if reply else ("" if reason else "stop"),
        "input_tokens": reply.input_tokens if reply else 0,
        "output_tokens": reply.output_tokens if reply else 0,
        "latency_s": reply.latency_s if reply else 0.0,
        "cost": reply.cost if reply else None,
        "request_key": outcome.row.key,
        "error": reason,
        "permanent": outcome.permanent,
    }


def _thought(ask: Ask, reply: Reply | None, config: RunConfig) -> Thought:
    if reply is None:
        return Thought("", config.variant(ask.variant).fixed_answer or "", "fixed")
    style = config.teachers[ask.teacher].reasoning_style
    return split(reply.content, reply.reasoning_content, reply.reasoning, style)
