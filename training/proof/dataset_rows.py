"""Anybody's conversations as a trainer meets them, for the proof on any dataset.

Reads what `curation/datasets/reading.py` finds at a file, a folder, a release or a repository; writes nothing. Roles
go by our names (human is user, gpt is assistant), a prompt and a response in columns become a turn each, and a turn's
reasoning stays under the key that it stood under: that is what a chat template finds or overlooks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from curation.datasets.reading import columns_of, parts_of
from pipelines.prompts.mildness import severity
from pipelines.prompts.turns import REASONING, Turn, sound, turns_of
from pipelines.sources import Source
from pipelines.thinking import ReasoningKey, Thought, join, split

KEYS: tuple[str, ...] = get_args(ReasoningKey)
INLINE = KEYS[0]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row: its number from 1, its turns, and its place among rows that are shown (`mildness.severity`)."""

    row: int
    turns: tuple[Turn, ...]
    severity: int = 0

    @property
    def thoughts(self) -> Mapping[int, Thought]:
        """Reasoning and answer of every turn of the assistant, by its place."""
        return {
            at: split(turn.content, turn.reasoning or None)
            for at, turn in enumerate(self.turns)
            if turn.role == "assistant"
        }

    def messages(self, key: str | None = None) -> list[dict[str, str]]:
        """The turns as a chat template is given them, their reasoning under another key of `KEYS` if one is named."""
        thoughts = self.thoughts if key is not None else {}
        found = []
        for at, turn in enumerate(self.turns):
            message = {"role": turn.role, "content": turn.content}
            if turn.key:
                message[turn.key] = turn.reasoning
            thought = thoughts.get(at)
            if key is not None and thought is not None and thought.reasoning:
                message = {"role": turn.role, "content": thought.answer, key: thought.reasoning}
                if key == INLINE:
                    message = {"role": turn.role, "content": join(thought.reasoning, thought.answer)}
            found.append(message)
        return found


def read_conversations(
    source: Source, mapping: Mapping[str, str], most: int | None = None
) -> tuple[list[Conversation], list[tuple[int, str]]]:
    """All rows that hold an answered conversation, and the numbers of the others with the reason.

    Args:
        mapping: Field to column, for fields of `curation.datasets.reading.FIELDS` whose column has another name.
        most: The first so many rows; all if None.

    Raises:
        UserError: nothing can be read there, or no column is the conversation or the prompt and its response.
    """
    kept: list[Conversation] = []
    refused: list[tuple[int, str]] = []
    number = 0
    for rows, _ in parts_of(source, most):
        columns = columns_of(dict.fromkeys(name for row in rows for name in row), mapping, source.hub)
        for row in rows:
            if number == most:
                break
            number += 1
            try:
                turns = _turns(row, columns)
            except ValueError as error:
                refused.append((number, str(error)))
                continue
            category, kind = (str(row.get(columns.get(field, "")) or "") for field in ("category", "kind"))
            kept.append(Conversation(number, tuple(turns), severity(category, kind)))
    return kept, refused


def _turns(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Turn]:
    """The turns of a row; ValueError gives the reason why it has none that a trainer could take."""
    values = {field: row.get(column) for field, column in columns.items()}
    answer = values.get("answer") if values.get("response") is None else values["response"]
    if "messages" in columns:
        turns = turns_of(values["messages"])
    elif isinstance(values["prompt"], list):
        turns = turns_of(values["prompt"], answer)
    else:
        asked = [values["prompt"], values["input"]] if values.get("input") else [values["prompt"]]
        turns = [Turn("user", "\n\n".join(sound(text, "the prompt") for text in asked))]
        turns.append(_answered(sound(answer, "the response"), values.get("reasoning"), columns))
    if values.get("system"):
        turns.insert(0, Turn("system", sound(values["system"], "'system'")))
    if turns[-1:] == [] or turns[-1].role != "assistant":
        raise ValueError("the last turn is not the assistant's")
    if not any(turn.role == "user" for turn in turns):
        raise ValueError("it has no turn of a user")
    return turns


def _answered(answer: str, reasoning: Any, columns: Mapping[str, str]) -> Turn:
    if not reasoning:
        return Turn("assistant", answer)
    column = columns["reasoning"]
    key = column if column in REASONING else "reasoning_content"
    return Turn("assistant", answer, sound(reasoning, f"'{column}'"), key)
