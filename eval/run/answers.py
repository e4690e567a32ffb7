"""Answers from Inspect's logs: every planned question with its outcome.

Reads logs; writes nothing.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.scorer import Score

from eval.models.kept_replies import ASKED, KEPT, WRITTEN
from eval.models.responses import thought_of
from eval.run.results import Answer
from eval.task_spec import TaskSpec
from pipelines.teachers.finish_reasons import cut_short

_GIVEN_UP = re.compile(r"RetryError\(<Future at \w+ state=finished raised (\w+)>\)")
# The words of the attempt before, in a traceback.
_WORDS = re.compile(r"(?:ReplyFailure|ConnectionFailed): (.+)")
_OURS = re.compile(r"""^(?:EndpointGone|RequestRefused|CannotContinue)\(['"](.*)['"]\)$""")


@dataclass(frozen=True, slots=True)
class Expected:
    """A planned answer: its question, its epoch (from 1), and the question's group."""

    id: str
    epoch: int
    category: str


def expected_of(samples: Iterable[Sample], epochs: int) -> list[Expected]:
    """Every answer a task is to have, in the order of its questions.

    Raises:
        ValueError: a sample without an id, or with a duplicate one.
    """
    found = []
    seen = set()
    for sample in samples:
        if sample.id is None or sample.id in seen:
            raise ValueError(f"The sample id {sample.id!r} is missing or duplicate.")
        seen.add(sample.id)
        category = str((sample.metadata or {}).get("category", ""))
        found += [Expected(str(sample.id), epoch, category) for epoch in range(1, epochs + 1)]
    return found


def answers_of(label: str, spec: TaskSpec, expected: Sequence[Expected], log: EvalLog) -> Iterator[Answer]:
    """The answers of one model to one task, in order; one that was never given is left out."""
    found = {(str(sample.id), sample.epoch): sample for sample in log.samples or []}
    for one in expected:
        sample = found.get((one.id, one.epoch))
        if sample is not None:
            yield _answer(label, spec, one, sample)


def due_of(log: EvalLog) -> list[Expected]:
    """Every answer that the log was to have."""
    categories = {str(sample.id): str(sample.metadata.get("category", "")) for sample in log.samples or []}
    ids = [str(name) for name in log.eval.dataset.sample_ids or categories]
    epochs = range(1, (log.eval.config.epochs or 1) + 1)
    return [Expected(name, epoch, categories.get(name, "")) for name in ids for epoch in epochs]


def _answer(label: str, spec: TaskSpec, one: Expected, sample: EvalSample) -> Answer:
    score = (sample.scores or {}).get(spec.scorer)
    value, unscored = value_of(score)
    error = error_line(sample.error.message, sample.error.traceback) if sample.error else ""
    thought = thought_of(sample.output)
    kept: dict[str, Any] = (score.metadata if score else None) or {}
    question = sample.metadata.get("question")
    usage = sample.output.usage
    stop = str(sample.output.stop_reason) if sample.output.choices else ""
    return Answer(
        model=label,
        task=spec.name,
        id=one.id,
        epoch=one.epoch,
        category=one.category,
        question=str(question if question is not None else _text(sample.input)),
        asked=_last_prompt(sample),
        reasoning=str(kept.get("reasoning", thought.reasoning)),
        answer=(score.answer if score and score.answer is not None else thought.answer),
        value=None if error else value,
        unscored="" if error else unscored,
        error=error,
        truncated=bool(stop) and cut_short(stop),
        stop_reason=stop,
        output_tokens=usage.output_tokens if usage else 0,
        detail=dict(kept.get("detail") or {}),
        topic=str(sample.metadata.get("topic") or ""),
    )


def error_line(message: str, trace: str = "") -> str:
    """What went wrong, in a line, out of the representation of an exception that Inspect keeps, and its traceback."""
    line = " ".join(message.split())
    if repeated := _GIVEN_UP.fullmatch(line):
        words = _WORDS.findall(trace)
        last = words[-1].strip() if words else f"the last of which raised {repeated[1]}"
        return f"given up after several attempts, {last}"[:500]
    return (_OURS.sub(r"\1", line))[:500]


def value_of(score: Score | None) -> tuple[float | None, str]:
    """A score's value, or None with the reason."""
    if score is None:
        return None, "not scored"
    value = score.value
    if not isinstance(value, int | float):
        return None, f"the scorer gave {str(value)[:80]!r}, no number"
    if math.isnan(value):
        return None, str(score.reason or score.explanation or "no verdict")
    return float(value), ""


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(message.text for message in prompt if message.role == "user")


def _last_prompt(sample: EvalSample) -> str:
    prompts = [message.text for message in sample.messages if message.role == "user"]
    return prompts[-1] if prompts else _text(sample.input)


def output_tokens(log: EvalLog) -> int:
    """Tokens that the measured model gave out over all its answers of a log."""
    used = [sample.model_usage.get(log.eval.model) for sample in log.samples or []]
    return sum(one.output_tokens for one in used if one is not None)


def prompts_written(logs: Iterable[EvalLog]) -> tuple[int, int]:
    """How many prompts an attacker wrote that no student changes: asked for, and kept from before."""
    written = [sample.metadata.get(WRITTEN) for log in logs for sample in log.samples or []]
    return written.count(ASKED), written.count(KEPT)


def seconds(logs: Iterable[EvalLog]) -> float:
    """Seconds in which at least one sample was under way, over every call that it took."""
    spans = sorted(
        (datetime.fromisoformat(sample.started_at), datetime.fromisoformat(sample.completed_at))
        for log in logs
        for sample in log.samples or []
        if sample.started_at and sample.completed_at
    )
    total = 0.0
    until: datetime | None = None
    for start, end in spans:
        begin = start if until is None else max(start, until)
        if end > begin:
            total += (end - begin).total_seconds()
            until = end
    return total
