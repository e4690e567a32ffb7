"""A few answers of each task for people to look at: hits, misses, answers without a verdict, failures.

Reads `Answer`s; writes nothing. Long texts are cut with a note of how long they are. The texts stay hostile: the page
that shows them escapes them.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from eval.run.results import Answer
from pipelines.prompts.mildness import severity

Outcome = Literal["hit", "miss", "unscored", "error"]

EACH = 3
SHOWN = 4000


@dataclass(frozen=True, slots=True)
class AnswerExample:
    """One answer, what became of it, and the task's own detail as lines of text. `model` is a row's name."""

    model: str
    outcome: Outcome
    answer: Answer
    detail: tuple[str, ...]


def examples_of(answers: Mapping[str, Sequence[Answer]]) -> tuple[AnswerExample, ...]:
    """A few answers of every task and outcome, mild ones first, taken from the models in turn.

    Args:
        answers: Row name -> its answers.
    """
    found: dict[tuple[str, Outcome], list[list[AnswerExample]]] = {}
    for model, own in answers.items():
        mine: dict[tuple[str, Outcome], list[AnswerExample]] = {}
        for answer in sorted(own, key=lambda answer: severity(answer.topic or answer.category)):
            kept = mine.setdefault((answer.task, outcome_of(answer)), [])
            if len(kept) < EACH:
                kept.append(_example(model, answer))
        for key, kept in mine.items():
            found.setdefault(key, []).append(kept)
    order = get_args(Outcome)
    tasks = list(dict.fromkeys(task for task, _ in found))
    keys = sorted(found, key=lambda key: (tasks.index(key[0]), order.index(key[1])))
    return tuple(example for key in keys for example in _in_turn(found[key]))


def by_outcome(examples: Sequence[AnswerExample]) -> list[tuple[tuple[str, Outcome], list[AnswerExample]]]:
    """The examples in their order, those of one task and outcome together."""
    return [
        (key, list(own))
        for key, own in itertools.groupby(examples, key=lambda example: (example.answer.task, example.outcome))
    ]


def outcome_of(answer: Answer) -> Outcome:
    """What became of an answer; a part of the value already counts as a hit."""
    if answer.error:
        return "error"
    if answer.value is None:
        return "unscored"
    return "hit" if answer.value > 0 else "miss"


def _in_turn(models: Iterable[list[AnswerExample]]) -> list[AnswerExample]:
    """The first of every model, then the second of every model, as many as are shown."""
    waiting = [list(own) for own in models]
    taken: list[AnswerExample] = []
    while any(waiting) and len(taken) < EACH:
        taken += [own.pop(0) for own in waiting if own]
    return taken[:EACH]


def _example(model: str, answer: Answer) -> AnswerExample:
    texts: dict[str, Any] = {
        name: cut(getattr(answer, name)) for name in ("question", "asked", "reasoning", "answer", "error")
    }
    detail = tuple(f"{name}: {cut(_words(value))}" for name, value in answer.detail.items())
    return AnswerExample(model, outcome_of(answer), replace(answer, **texts, detail={}), detail)


def cut(text: str) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} [... {len(text)} characters]"


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
