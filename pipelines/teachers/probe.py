"""One mild question to a teacher, and what came back: the way to find out whether its reasoning can be had.

Reads a teacher's entry; writes nothing, except the log of a server that it starts for an entry with `serve:`. Run it
with `saferthoughts teachers test NAME`. It asks through the client that `generate` asks through, once, and up to two
requests more of a few tokens each.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pipelines.errors import UserError
from pipelines.event_loops import outside_loop
from pipelines.generate.plan import request_fields
from pipelines.settings.options import Options, configured
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import TeacherClient, TeacherError, api_key
from pipelines.teachers.finish_reasons import cut_short
from pipelines.teachers.first_question import MESSAGES, FirstAnswer, ask_first, beginning, reasoning_elsewhere
from pipelines.teachers.reply import Reply
from pipelines.teachers.vllm_server import served
from pipelines.thinking import Source

_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "minutes",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"minutes": {"type": "integer"}},
            "required": ["minutes"],
            "additionalProperties": False,
        },
    },
}
# Whether a field is taken shows with the first token.
_FEW_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a server takes a field of a request: None where that could not be found out, and then why."""

    accepted: bool | None
    detail: str = ""

    def __str__(self) -> str:
        word = {True: "accepted", False: "refused", None: "not known"}[self.accepted]
        return f"{word}: {self.detail}" if self.detail else word


@dataclass(frozen=True, slots=True)
class Probe:
    """What one server of a teacher answered. Tokens are its own counts, cost is in US dollars, latency in seconds.

    `reasoning` and `answer` are the beginnings, on one line, without anything a terminal would act on. `form` tells how
    the reply came and what was odd about it. `window` is most tokens of prompt and answer together, where it is told;
    `changes` are settings that the server refuses and a run leaves out. `hint` is what to change in the entry, "" where
    nothing is amiss.
    """

    name: str
    model: str
    url: str
    source: Source
    finish_reason: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float | None
    latency_s: float
    reasoning: str
    answer: str
    form: str
    window: int | None
    changes: tuple[str, ...]
    seed: Support
    json_schema: Support
    hint: str


def chosen(options: Options) -> tuple[str, Teacher]:
    """The teacher that the options name, and its entry as they change it.

    Raises:
        UserError: they name none, or one that is not known.
    """
    if options.teacher is None and options.base_url is None:
        raise UserError("Name a teacher (`saferthoughts teachers list` has them), or give --base-url and --model.")
    config = configured(options)
    name = str(config.roles.reasoning)
    return name, config.teachers[name]


def probe(name: str, teacher: Teacher, logs: Path) -> list[Probe]:
    """Ask every server of a teacher the question; an embedded or served one is started for it and stopped again.

    Args:
        name: The teacher's name, for messages.
        logs: Folder for the log of a server that is started.

    Raises:
        UserError: no key, no server, a wrong key, an unknown model, or any other reason for no answer.
    """
    api_key(name, teacher)
    with _reachable(name, teacher, logs) as urls:
        return outside_loop(lambda: asyncio.run(ask_all(name, teacher, urls)))


@contextmanager
def _reachable(name: str, teacher: Teacher, logs: Path) -> Iterator[Sequence[str]]:
    if teacher.embedded:
        from pipelines.rehearsal.server import rehearsing

        with rehearsing() as url:
            yield [url]
    elif teacher.serve is not None:
        with served(name, teacher, logs) as url:
            yield [url]
    else:
        yield teacher.urls


async def ask_all(name: str, teacher: Teacher, urls: Sequence[str]) -> list[Probe]:
    return [await _ask(name, teacher, url) for url in urls]


async def _ask(name: str, teacher: Teacher, url: str) -> Probe:
    found = await ask_first(name, teacher, url)
    reply, thought, taken = found.reply, found.thought, found.teacher
    # An error is told at once here; `generate` is the one to be patient.
    once = taken.model_copy(update={"retries": 0})
    fields = request_fields(once, 0)
    async with TeacherClient(name, once, [url]) as client:
        few = {**fields, "max_tokens": min(_FEW_TOKENS, fields.get("max_tokens", _FEW_TOKENS))}
        seed = Support(True) if "seed" in fields else await _supports(client, {**few, "seed": 1})
        schema = await _supports(client, {**few, "response_format": _SCHEMA})
    return Probe(
        name=name,
        model=teacher.model,
        url=url,
        source=thought.source,
        finish_reason=reply.finish_reason,
        input_tokens=reply.input_tokens,
        cached_tokens=reply.cached_tokens,
        output_tokens=reply.output_tokens,
        cost=reply.cost,
        latency_s=reply.latency_s,
        reasoning=beginning(thought.reasoning),
        answer=beginning(thought.answer),
        form=_form(reply),
        window=found.window,
        changes=found.changes,
        seed=seed,
        json_schema=schema,
        hint=_hint(found),
    )


async def _supports(client: TeacherClient, fields: dict[str, Any]) -> Support:
    try:
        await client.ask(MESSAGES, fields)
    except TeacherError as error:
        return Support(False if error.refused else None, beginning(str(error)))
    return Support(True)


def _form(reply: Reply) -> str:
    came = "in one piece" if reply.first_token_s is None else f"streamed, first token after {reply.first_token_s:.2f} s"
    return f"{came}; {beginning(reply.notes)}" if reply.notes else came


def _hint(found: FirstAnswer) -> str:
    reply, teacher = found.reply, found.teacher
    if reply.finish_reason == "length":
        limit = teacher.sampling.max_tokens
        at = "its server's limit" if limit is None else f"max_tokens ({limit})"
        return f"The answer was cut off at {at}: raise sampling.max_tokens or the server's context length."
    if cut_short(reply.finish_reason):
        why = (
            f"ended with the finish reason '{beginning(reply.finish_reason)}'"
            if reply.finish_reason
            else "says not why"
        )
        return f"The answer {why}: such answers count as cut short, and are rejected."
    if elsewhere := reasoning_elsewhere(found):
        return f"Reasoning came as '{elsewhere}', which reasoning_style {teacher.reasoning_style} rules out: use auto."
    return ""


def probe_words(one: Probe) -> str:
    """What a server answered in one line: model, time, reasoning, window, and what to change."""
    window = "window not told" if one.window is None else f"window {one.window:,} tokens"
    parts = [
        f"{one.model} answered in {one.latency_s:.2f} s",
        f"reasoning {_found(one)}",
        window,
        *one.changes,
        one.hint,
    ]
    return "; ".join(filter(None, parts))


def probe_table(probes: Sequence[Probe]) -> Table:
    """One column a server. Texts are set as they are: brackets in an answer are no markup."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    for _ in probes:
        table.add_column(overflow="fold")
    rows: list[tuple[str, list[str]]] = [
        ("teacher", [one.name for one in probes]),
        ("model", [one.model for one in probes]),
        ("endpoint", [one.url for one in probes]),
        ("reasoning", [_found(one) for one in probes]),
        ("finish reason", [one.finish_reason or "not told" for one in probes]),
        ("reply", [one.form for one in probes]),
        ("tokens", [f"{one.input_tokens} in ({one.cached_tokens} cached), {one.output_tokens} out" for one in probes]),
        ("latency", [f"{one.latency_s:.2f} s" for one in probes]),
        ("price", ["no price in its entry" if one.cost is None else f"${one.cost:.6f}" for one in probes]),
        ("window", ["not told" if one.window is None else f"{one.window} tokens" for one in probes]),
        ("seed", [str(one.seed) for one in probes]),
        ("json_schema", [str(one.json_schema) for one in probes]),
        ("thought", [one.reasoning or "-" for one in probes]),
        ("answer", [one.answer or "-" for one in probes]),
    ]
    if any(one.changes for one in probes):
        rows.append(("changed", ["; ".join(one.changes) or "-" for one in probes]))
    if any(one.hint for one in probes):
        rows.append(("to change", [one.hint or "-" for one in probes]))
    for label, cells in rows:
        table.add_row(label, *(Text(cell) for cell in cells))
    return table


def _found(one: Probe) -> str:
    detail: dict[str, str] = {
        "reasoning_content": "found, in the field reasoning_content",
        "reasoning": "found, in the field reasoning",
        "inline": "found, inline between <think> and </think>",
        "missing_opener": "found, inline before </think>, without an opening tag",
        "truncated": "found, inline, never closed",
        "none": "none found",
    }
    return detail[one.source]
