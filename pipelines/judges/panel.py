"""A run's judges, ready to judge: one response in, a judgement of each judge out, asked again where it has to be."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pipelines.judges.patterns import (
    OUTPUTS,
    UNSCORED,
    Output,
    PatternVerdict,
    over_refusal_messages,
    pattern_messages,
    read_over_refusal,
    read_patterns,
    response_format,
)
from pipelines.judges.refusals import is_refusal
from pipelines.judges.rules import judge_by_rules
from pipelines.judges.safety import SafetyVerdict, guard_of, read_reply
from pipelines.judges.tallies import FIXED, NO_REASONING
from pipelines.judges.voting import vote
from pipelines.judges.windows import windows
from pipelines.prompts.variant import Message
from pipelines.records import LABELS, PATTERNS, Judgement, Kind, Response, Verdict
from pipelines.runner.asker import Asker
from pipelines.runner.failures import reason_of
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import Judge, JudgeKind
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import TeacherError
from pipelines.teachers.finish_reasons import cut_short
from pipelines.teachers.reply import Reply
from pipelines.thinking import Thought, split

Read = TypeVar("Read", PatternVerdict, SafetyVerdict)


@dataclass(frozen=True, slots=True)
class Row:
    """A response and the prompt that it answers, as judges need them."""

    kind: Kind
    query: str
    response: Response

    def unjudgeable(self, kind: JudgeKind) -> str:
        """Why no judge of a kind judges the row, "" where one does. Safety is judged without reasoning as well."""
        if self.response.reasoning_source == "fixed":
            return FIXED
        if not self.response.answer.strip():
            return "no answer"
        if kind != "safety" and self.kind == "harmful" and not self.response.reasoning.strip():
            return NO_REASONING
        return ""


@dataclass(slots=True)
class _Spent:
    """What the requests of one judgement took."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    def add(self, reply: Reply) -> None:
        self.requests += 1
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens
        if reply.cost is not None:
            self.cost = (self.cost or 0.0) + reply.cost


class Panel:
    """The judges of a run's configuration. One event loop only."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
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
        return list(await asyncio.gather(*(self._one(name, judge, row, asker) for name, judge in self._judges)))

    def verdict(self, row: Row, judgements: list[Judgement]) -> Verdict:
        """The judges' vote."""
        answer = row.response.answer
        refused = is_refusal(answer) if answer.strip() else None
        return vote(judgements, self._config.judging.vote, refused)

    async def _one(self, name: str, judge: Judge, row: Row, asker: Asker) -> Judgement:
        if judge.kind == "rules":
            return by_rules(name, row)
        spent = _Spent()
        if judge.kind == "safety":
            safety = SafetyVerdict(None, reason=row.unjudgeable("safety"))
            if not safety.reason:
                safety = await self._safety(judge, row, asker, spent)
            return judgement(name, "safety", row, spent, safety=safety)
        patterns = PatternVerdict(UNSCORED, reason=row.unjudgeable("patterns"))
        if not patterns.reason:
            patterns = await self._patterns(name, judge, row, asker, spent)
        return judgement(name, "patterns", row, spent, patterns=patterns)

    async def _patterns(self, name: str, judge: Judge, row: Row, asker: Asker, spent: _Spent) -> PatternVerdict:
        query, answer = row.query, row.response.answer

        def send(messages: list[Message], benign: bool) -> Callable[[int], Any]:
            return lambda turn: self._formatted(name, judge, messages, benign, asker, turn)

        if row.kind == "benign":
            messages = over_refusal_messages(query, answer)
            return await _until_read(
                judge,
                spent,
                send(messages, True),
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
                    send(messages, False),
                    lambda thought, piece=piece: read_patterns(thought.answer, query, piece, answer),  # type: ignore[misc]
                    _unread,
                )
            )
        return merged(found)

    async def _safety(self, judge: Judge, row: Row, asker: Asker, spent: _Spent) -> SafetyVerdict:
        guard = guard_of(judge)
        found = []
        for piece in windows(row.response.reasoning, judge.window_chars, judge.overlap_chars):
            messages = guard.messages(row.query, piece, row.response.answer)

            def send(turn: int, messages: list[Message] = messages) -> Any:
                teacher = self._teacher(judge)
                return asker.ask(judge.teacher or "", messages, _fields(judge, teacher, turn), turn)

            def read(thought: Thought, messages: list[Message] = messages) -> SafetyVerdict:
                return read_reply(guard, messages, thought)

            found.append(await _until_read(judge, spent, send, read, lambda reason: SafetyVerdict(None, reason=reason)))
        unread = next((item for item in found if item.reason), None)
        return unread or max(found, key=lambda item: (item.safety == "unsafe", item.score or 0.0))

    async def _formatted(
        self, name: str, judge: Judge, messages: list[Message], benign: bool, asker: Asker, turn: int
    ) -> Reply:
        """Ask for JSON in the strictest way that the server accepts; the first request finds out which."""

        async def ask(output: Output, optional: bool) -> Reply:
            fields = _fields(judge, self._teacher(judge), turn)
            wanted = response_format(output, benign)
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

    def _teacher(self, judge: Judge) -> Teacher:
        return self._config.judge_teachers[judge.teacher or ""]


def _unread(reason: str) -> PatternVerdict:
    return PatternVerdict(UNSCORED, reason=reason)


def _fields(judge: Judge, teacher: Teacher, turn: int) -> dict[str, Any]:
    fields = judge.sampling.model_dump(exclude_none=True)
    if judge.sampling.seed is not None:
        fields["seed"] = judge.sampling.seed + turn
    if teacher.extra_body:
        fields["extra_body"] = teacher.extra_body
    return fields


async def _until_read(
    judge: Judge,
    spent: _Spent,
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
            return found
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
    return PatternVerdict(labels, evidence=evidence, analysis=analysis)


def by_rules(name: str, row: Row) -> Judgement:
    """The rules judge's judgement; it asks nobody."""
    reason = row.unjudgeable("rules")
    if reason:
        return judgement(name, "patterns", row, _Spent(), patterns=PatternVerdict(UNSCORED, reason=reason))
    found = judge_by_rules(row.kind, row.response.reasoning, row.response.answer)
    compliance = None
    if row.kind == "benign" and not found.reason:
        compliance = "full_refusal" if found.refused else "full_compliance"
    verdict = PatternVerdict(found.labels, evidence=found.evidence, reason=found.reason)
    return judgement(name, "patterns", row, _Spent(), patterns=verdict, compliance=compliance)


def judgement(
    name: str,
    kind: str,
    row: Row,
    spent: _Spent,
    patterns: PatternVerdict | None = None,
    safety: SafetyVerdict | None = None,
    compliance: str | None = None,
) -> Judgement:
    """A verdict of either kind as a row of judgements.parquet."""
    labels: Mapping[str, bool | None] = patterns.labels if patterns else UNSCORED
    evidence: Mapping[str, Any] = patterns.evidence if patterns else {}
    if safety is not None and safety.categories:
        evidence = {"categories": ",".join(safety.categories)}
    found = patterns or safety
    assert found is not None
    return Judgement(
        response_id=row.response.response_id,
        judge=name,
        kind=kind,
        **labels,
        refused=None,
        compliance=(patterns.compliance if patterns else None) or compliance,
        safety=safety.safety if safety else None,
        score=safety.score if safety else None,
        evidence=json.dumps(evidence, ensure_ascii=False),
        analysis=patterns.analysis if patterns else "",
        reason=found.reason,
        requests=spent.requests,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        cost=spent.cost,
    )


def flags_of(row: Row, verdict: Verdict) -> tuple[str, ...]:
    """What is wrong with a row: patterns, "unsafe", "no_refusal" of a harmful prompt, "over_refusal" of a benign one.
    The parent `overthinking` is no flag of its own."""
    benign = row.kind == "benign"
    flags = [] if benign else [label for label in PATTERNS if getattr(verdict, label)]
    flags += ["unsafe"] if verdict.safety == "unsafe" else []
    flags += ["no_refusal"] if verdict.refused is False and not benign else []
    flags += ["over_refusal"] if verdict.compliance in ("partial_refusal", "full_refusal") else []
    return tuple(flags)
