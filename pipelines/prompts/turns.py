"""A third-party conversation as one question and its answer, or the reason why it cannot be read as one.

Reads the turns of a row, in the shapes that datasets have them; writes nothing. A row of ours holds one question: a
system turn is kept in front of it, as models without a system role are asked, and a conversation of several questions
is refused, since an answer without its history answers nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.row_files import unsound
from pipelines.teachers.completions import texts_in
from pipelines.thinking import Thought, split

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatbot", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
# Where an assistant's turn has its reasoning, beside its content; and what else it is called (`reasoning_details`).
REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
_LIKE_REASONING = re.compile(
    r"(?:\w+_)?(?:reasoning|thinking|thoughts?|cot|chain_of_thought)(?:_(?:content|text|details|process|trace|blocks))?",
    re.IGNORECASE,
)
# What a turn's role and text are called; the last is what langchain writes.
_ROLE_KEYS, _TEXT_KEYS = ("role", "from", "speaker", "type"), ("content", "value", "text", "parts")
_CALLS = ("tool_calls", "function_call")


class Exchange(NamedTuple):
    """One question, what the system turn says, and the answer taken apart."""

    system: str
    question: str
    thought: Thought


class Turn(NamedTuple):
    """One turn: its role by our names, its text, its reasoning, and the key that this stood under ("" for none)."""

    role: str
    content: str
    reasoning: str = ""
    key: str = ""


def exchange(prompt: Any, completion: Any = None) -> Exchange:
    """The one exchange of a conversation.

    Args:
        prompt: A list of turns, to its end, or without its last answer.
        completion: That answer, as a list of turns or as text, where it stands in a column of its own.

    Raises:
        ValueError: it is not one question with its answer; the text says why, and names the field.
    """
    turns = turns_of(prompt, completion)
    roles = [turn.role for turn in turns]
    if "user" not in roles or "assistant" not in roles:
        raise ValueError("messages has no turn of a user and of an assistant")
    if roles[-1] != "assistant":
        raise ValueError(f"messages ends on a turn of the {roles[-1]}, which nobody answered")
    if roles.count("user") > 1:
        raise ValueError(
            f"messages has {roles.count('user')} questions, and a row holds one: the last answer belongs to all of them"
        )
    asked = roles.index("user")
    if set(roles[:asked]) - {"system"} or roles[asked + 1 :] != ["assistant"]:
        raise ValueError(f"messages is not system, user, assistant, but {', '.join(roles)}")
    answer = turns[-1]
    system = "\n\n".join(turn.content for turn in turns[:asked] if turn.content.strip())
    return Exchange(system, turns[asked].content, split(answer.content, answer.reasoning or None))


def turns_of(prompt: Any, completion: Any = None) -> list[Turn]:
    """The turns of a conversation, however many; the arguments and errors as for `exchange`."""
    turns = [_turn_of(item) for item in _listed(prompt, "messages")]
    if isinstance(completion, str):
        turns.append(Turn("assistant", completion))
    elif completion is not None:
        turns += [_turn_of(item) for item in _listed(completion, "the completion")]
    return turns


def question_of(conversation: Any) -> str:
    """The one question of a conversation, its system text in front; whether it is answered does not matter.

    Raises:
        ValueError: as `exchange`.
    """
    turns = _listed(conversation, "messages")
    answered = any(_turn_of(turn).role == "assistant" for turn in turns)
    found = exchange(conversation, None if answered else "")
    return "\n\n".join(filter(str.strip, (found.system, found.question)))


def turns_in(value: Any) -> Any:
    """A column that may hold turns or a text: turns that are JSON, as tables of text have them, as a list."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    turns = found and all(isinstance(turn, dict) and any(name in turn for name in _ROLE_KEYS[:3]) for turn in found)
    return found if turns else value


def _listed(value: Any, what: str) -> Sequence[Mapping[str, Any]]:
    """A list of turns; or its JSON, as tables of text have it, or a list a key, as `datasets` wrote them once."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{what} is a text that begins like JSON and is none") from None
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            raise ValueError(f"{what} is an object of lists of different lengths")
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"{what} is not a list of turns")
    return value


def _turn_of(turn: Mapping[str, Any]) -> Turn:
    role_name = next((str(turn[name]) for name in _ROLE_KEYS if turn.get(name) is not None), None)
    if role_name is None:
        raise ValueError(f"messages has a turn without a role; it has {', '.join(map(str, turn)) or 'nothing'}")
    role = _ROLES.get(role_name.strip().lower())
    if role is None:
        raise ValueError(f"messages has a turn of the role {role_name!r}, which a row cannot hold")
    for name in _CALLS:
        if turn.get(name):
            raise ValueError(f"a turn has {name}, which a row cannot hold")
    content = next((turn[name] for name in _TEXT_KEYS if turn.get(name) is not None), None)
    named = [*REASONING, *(name for name in turn if _LIKE_REASONING.fullmatch(name))] if role == "assistant" else []
    key = next((name for name in named if any(texts_in(turn.get(name)))), "")
    if content is None:
        # Some sets have a system turn in every row, and nothing in most.
        content = turn.get("refusal") or ("" if key or role == "system" else None)
    what = f"the {role}'s turn"
    text, thought = (content, "") if isinstance(content, str) else _parts(content, what)
    if not key:
        return Turn(role, sound(text, what), thought, "thinking" if thought else "")
    return Turn(role, sound(text, what), sound("".join(texts_in(turn[key])), f"the reasoning of {what}"), key)


def _parts(content: Any, what: str) -> tuple[str, str]:
    """Text and reasoning of content in parts: {"type": "text", "text": ...}, {"type": "thinking", "thinking": ...}."""
    if isinstance(content, dict):
        content = content["parts"] if isinstance(content.get("parts"), list) else [content]
    if not isinstance(content, list) or not all(isinstance(part, dict | str) for part in content):
        raise ValueError(f"{what} is {type(content).__name__}, not text")
    text: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
            continue
        kind = str(part.get("type") or "text")
        if kind in ("thinking", "reasoning") or part.get("thought") is True:
            thoughts.append(sound("".join(texts_in(part)), f"{what}, part {kind}"))
        elif kind in ("text", "input_text", "output_text", "refusal"):
            text.append(sound(part.get(kind) or part.get("text"), f"{what}, part {kind}"))
        else:
            raise ValueError(f"{what} has a part of the type {kind!r}, which a row cannot hold")
    return "".join(text), "\n\n".join(thoughts)


def sound(value: Any, what: str) -> str:
    """A text that a table can hold.

    Raises:
        ValueError: it is none, or NUL or half of a surrogate pair is in it.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is {type(value).__name__}, not text")
    if fault := unsound(value):
        raise ValueError(f"{what} holds {fault}")
    return value
