"""A run's judges, ready to judge: one response in, a judgement of each judge out, asked again where it has to be."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, TypeVar

from pipelines.judges.confidence import Again, certainty, with_repeats
from pipelines.judges.guard_forms import guard_of
from pipelines.judges.local.cascade import Cascade, settled
from pipelines.judges.patterns import (
    OUTPUTS,
    UNSCORED,
    Form,
    Output,
    PatternVerdict,
    over_refusal_messages,
    pattern_messages,
    read_over_refusal,
    read_patterns,
    response_format,
    several_messages,
)
from pipelines.judges.refusals import is_refusal
from pipelines.judges.rows import Row, Spent, judgement, without_asking
from pipelines.judges.safety import Guard, SafetyVerdict, least, read_reply, worst
from pipelines.judges.voting import vote
from pipelines.judges.windows import windows
from pipelines.prompts.variant import Message
from pipelines.records import LABELS, Judgement, Verdict
from pipelines.runner.asker import Asker
from pipelines.runner.failures import reason_of
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import Judge
from pipelines.teachers.client import TeacherError
from pipelines.teachers.finish_reasons import cut_short
from pipelines.teachers.reply import Reply
from pipelines.thinking import Thought, split

Read = TypeVar("Read", PatternVerdict, SafetyVerdict)


class Panel:
    """The judges of a run's configuration. One event loop only."""

    def __init__(self, config: RunConfig, cascades: Mapping[str, Cascade] | None = None) -> None:
        """Judges of a configuration; those in `cascades` are asked only about what a local judge does not decide."""
        self._config = config
        self._cascades = cascades or {}
        self._judges = [(name, config.judges[name]) for name in config.judging.judges]
        self._outputs: dict[str, Output] = {
            name: judge.output for name, judge in self._judges if judge.output != "auto"
        }
        self._probing = {name: asyncio.Lock() for name, _ in self._judges}

    async def judge(self, row: Row, asker: Asker) -> list[Judgement]:
        """What each judge says of a row. A judge that cannot be asked or read leaves it unscored, with the reason.

        Raises:
            NotAttempted: nothing more is asked in this call.
        """
        return (await self.judge_together([row], asker))[0]

    async def judge_together(self, rows: Sequence[Row], asker: Asker) -> list[list[Judgement]]:
        """The same of several responses to one prompt, which a judge with `rows_per_request` is shown at once.

        Raises:
            NotAttempted: nothing more is asked in this call.
        """
        found = await self._asked(rows, asker)
        again = [
            await self._asked(rows, Again(asker, turn, sampled=True))
            for turn in range(1, self._config.judging.repeat if any(judge.teacher for _, judge in self._judges) else 1)
        ]
        return [
            with_repeats(row, own, [turn[at] for turn in again])
            for at, (row, own) in enumerate(zip(rows, found, strict=True))
        ]

    async def _asked(self, rows: Sequence[Row], asker: Asker) -> list[list[Judgement]]:
        by_judge = await asyncio.gather(*(self._all(name, judge, rows, asker) for name, judge in self._judges))
        return [list(judgements) for judgements in zip(*by_judge, strict=True)]

    def verdict(self, row: Row, judgements: list[Judgement]) -> Verdict:
        """The judges' vote."""
        answer = row.response.answer
        refused = is_refusal(answer) if answer.strip() else None
        return vote(judgements, self._config.judging.vote, refused)

    async def _all(self, name: str, judge: Judge, rows: Sequence[Row], asker: Asker) -> list[Judgement]:
        """One judge's judgements of rows of one prompt, in their order. What it gives no verdict on, where it is shown
        several, it is asked about alone."""
        groups = [group for group in _together(judge, rows) if len(group) > 1]
        answered = await asyncio.gather(*(self._several(name, judge, group, asker) for group in groups))
        known = {id(row): (spent, verdict) for group in answered for row, spent, verdict in group}
        alone = (None, None)
        return list(
            await asyncio.gather(*(self._one(name, judge, row, asker, *known.get(id(row), alone)) for row in rows))
        )

    async def _several(
        self, name: str, judge: Judge, rows: Sequence[Row], asker: Asker
    ) -> list[tuple[Row, Spent, PatternVerdict | None]]:
        query = rows[0].query
        pairs = [(row.response.reasoning, row.response.answer) for row in rows]
        spent = Spent()
        try:
            reply = await self._formatted(name, judge, several_messages(query, pairs), "several", asker, 0)
        except TeacherError as error:
            # A refusal may be one row's fault; from a server that fails nothing comes for one row either.
            verdicts = [None if error.permanent else _unread(reason_of(error))] * len(rows)
        else:
            spent.add(reply)
            answer = split(reply.content, reply.reasoning_content, reply.reasoning).answer
            read = [read_patterns(answer, query, *pair) for pair in pairs]
            verdicts = [None if verdict.reason else verdict for verdict in read]
        return list(zip(rows, spent.shared(len(rows)), verdicts, strict=True))

    async def _one(
        self,
        name: str,
        judge: Judge,
        row: Row,
        asker: Asker,
        spent: Spent | None = None,
        known: PatternVerdict | None = None,
    ) -> Judgement:
        if judge.teacher is None:
            return without_asking(name, judge, row)
        spent = spent or Spent()
        if judge.kind == "safety":
            safety = SafetyVerdict(None, reason=row.unjudgeable("safety"))
            if not safety.reason:
                safety = await self._safety(judge, row, asker, spent)
            return judgement(name, "safety", row, spent, safety=safety)
        patterns = known or PatternVerdict(UNSCORED, reason=row.unjudgeable("patterns"))
        if known is None and not patterns.reason:
            cascade = self._cascades.get(name)
            ask = self._patterns if cascade is None else partial(self._cascaded, cascade)
            patterns = await ask(name, judge, row, asker, spent)
        return judgement(name, "patterns", row, spent, patterns=patterns)

    async def _cascaded(
        self, cascade: Cascade, name: str, judge: Judge, row: Row, asker: Asker, spent: Spent
    ) -> PatternVerdict:
        """The local judge's verdict where it decides, else the LLM's; of a drawn row that they differ on, what most of
        several of the LLM's verdicts say, so that what it says by chance is not held against the local judge."""
        if not cascade.drew(row):
            return await cascade.decide(row) or await self._patterns(name, judge, row, asker, spent)
        found: PatternVerdict | None = None
        try:
            found = await self._patterns(name, judge, row, asker, spent)
            votes = [found]
            while not found.reason and cascade.disputes(row, votes[0]):
                if (most := settled(votes)) is not None:
                    found = most
                    break
                again = await self._patterns(name, judge, row, asker, spent, len(votes) * judge.asks)
                if again.reason:
                    # Too few verdicts to go by: the row shows nothing about the local judge.
                    found = again
                votes.append(again)
        finally:
            cascade.learn(row, found)
        return found if not found.reason else votes[0]

    async def _patterns(
        self, name: str, judge: Judge, row: Row, asker: Asker, spent: Spent, first: int = 0
    ) -> PatternVerdict:
        query, answer = row.query, row.response.answer

        def send(messages: list[Message], form: Form) -> Callable[[int], Any]:
            return lambda turn: self._formatted(name, judge, messages, form, asker, first + turn)

        if row.kind == "benign":
            messages = over_refusal_messages(query, answer)
            return await _until_read(
                judge,
                spent,
                send(messages, "over_refusal"),
                lambda thought: read_over_refusal(thought.answer, query, answer),
                _unread,
            )
        found = []
        pieces = windows(row.response.reasoning, judge.window_chars, judge.overlap_chars)
        for part, piece in enumerate(pieces, 1):
            messages = pattern_messages(query, piece, answer, part, len(pieces))
            found.append(
                await _until_read(
                    judge,
                    spent,
                    send(messages, "patterns"),
                    lambda thought, piece=piece: read_patterns(thought.answer, query, piece, answer),  # type: ignore[misc]
                    _unread,
                )
            )
        return merged(found)

    async def _safety(self, judge: Judge, row: Row, asker: Asker, spent: Spent) -> SafetyVerdict:
        pieces = windows(row.response.reasoning, judge.window_chars, judge.overlap_chars)
        found = []
        for guard, piece in product(guard_of(judge).parts, pieces):
            messages = guard.messages(row.query, piece, row.response.answer)

            def send(turn: int, messages: list[Message] = messages) -> Any:
                return asker.ask(judge.teacher or "", messages, self._fields(judge, turn), turn)

            def read(thought: Thought, guard: Guard = guard, messages: list[Message] = messages) -> SafetyVerdict:
                return read_reply(guard, messages, thought)

            found.append(await _until_read(judge, spent, send, read, lambda reason: SafetyVerdict(None, reason=reason)))
            if found[-1].reason:
                break  # no other part changes that
        return worst(found)

    async def _formatted(
        self, name: str, judge: Judge, messages: list[Message], form: Form, asker: Asker, turn: int
    ) -> Reply:
        """Ask for JSON in the strictest way that the server accepts; the first request finds out which."""

        async def ask(output: Output, optional: bool) -> Reply:
            fields = self._fields(judge, turn)
            wanted = response_format(output, form)
            return await asker.ask(
                judge.teacher or "", messages, fields | ({"response_format": wanted} if wanted else {}), turn, optional
            )

        if name not in self._outputs:
            async with self._probing[name]:
                for output in OUTPUTS:
                    if name in self._outputs:
                        break
                    try:
                        reply = await ask(output, optional=output != OUTPUTS[-1])
                    except TeacherError as error:
                        if not error.refused or output == OUTPUTS[-1]:
                            raise
                    else:
                        self._outputs[name] = output
                        return reply
        return await ask(self._outputs[name], optional=False)

    def _fields(self, judge: Judge, turn: int) -> dict[str, Any]:
        fields = judge.sampling.model_dump(exclude_none=True)
        if judge.sampling.seed is not None:
            fields["seed"] = judge.sampling.seed + turn
        if self._config.judging.logprobs:
            fields["logprobs"] = True
        teacher = self._config.judge_teachers[judge.teacher or ""]
        if teacher.extra_body:
            fields["extra_body"] = teacher.extra_body
        return fields


def _together(judge: Judge, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of one prompt as the groups in which a judge is shown them, no longer together than one may be; a row that
    is judged otherwise, or not at all, is in none."""
    group: list[Row] = []
    chars = 0
    for row in rows if judge.rows_per_request > 1 else ():
        size = len(row.response.reasoning) + len(row.response.answer)
        if row.kind != "harmful" or row.unjudgeable("patterns") or size > judge.window_chars:
            continue
        if group and (len(group) == judge.rows_per_request or chars + size > judge.window_chars):
            yield group
            group, chars = [], 0
        group.append(row)
        chars += size
    if group:
        yield group


def _unread(reason: str) -> PatternVerdict:
    return PatternVerdict(UNSCORED, reason=reason)


async def _until_read(
    judge: Judge,
    spent: Spent,
    send: Callable[[int], Any],
    read: Callable[[Thought], Read],
    failed: Callable[[str], Read],
) -> Read:
    """Ask until a reply can be read, at most `judge.asks` times; then what was wrong with the last one."""
    found: Read | None = None
    for turn in range(judge.asks):
        try:
            reply: Reply = await send(turn)
        except TeacherError as error:
            return failed(reason_of(error))
        spent.add(reply)
        if reply.finish_reason == "content_filter":
            found = failed("the judge's reply was stopped by a content filter")
            continue
        found = read(split(reply.content, reply.reasoning_content, reply.reasoning))
        if not found.reason:
            return replace(found, confidence=certainty(reply.logprobs)) if reply.logprobs else found
        if reply.finish_reason == "length":
            found = failed("the judge's reply was cut off at its token limit")
        elif cut_short(reply.finish_reason):
            found = failed(f"the judge's reply was cut short: {reply.finish_reason or 'no finish reason'}")
    assert found is not None
    return found


def merged(found: list[PatternVerdict]) -> PatternVerdict:
    """Verdicts on the pieces of one response as one: harm is recognised where any piece recognises it, and every other
    label holds where any piece shows it. Unscored where a piece is."""
    if len(found) == 1:
        return found[0]
    unread = next((index for index, item in enumerate(found) if item.reason), None)
    if unread is not None:
        return PatternVerdict(UNSCORED, reason=f"part {unread + 1} of {len(found)}: {found[unread].reason}")
    labels: dict[str, bool | None] = {label: any(item.labels[label] for item in found) for label in LABELS}
    labels["lack_of_safety_awareness"] = all(item.labels["lack_of_safety_awareness"] for item in found)
    evidence: dict[str, str] = {}
    for item in found:
        for label, span in item.evidence.items():
            if labels[label]:
                evidence.setdefault(label, span)
    analysis = " ".join(f"[{part} of {len(found)}] {item.analysis}" for part, item in enumerate(found, 1))
    confidence = least(item.confidence for item in found)
    return PatternVerdict(labels, evidence=evidence, analysis=analysis, confidence=confidence)
