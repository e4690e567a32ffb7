"""What a request to the rehearsal teacher asks for: its variant, its kind, and the words of it to repeat.

Reads the variants' instructions and the bundled prompts, which are looked up exactly before `lexicon.py` weighs words.
Request texts are hostile: only letters, digits and mild punctuation of them are ever repeated.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from pipelines.prompts.variant import Message, load_variants
from pipelines.rehearsal.lexicon import lexicon
from pipelines.repairs import CLOSING, OPENING
from pipelines.settings.parts import read_yaml
from pipelines.thinking import OPEN

Form = Literal["steps", "text", "list", "facts"]

_BUNDLED = Path(__file__).parents[1] / "prompts" / "bundled"
# Of a very long request the two ends are read: what is asked stands at one of them.
_HEAD, _TAIL = 12_000, 8_000
_LONGEST_DEED = 20
_SENTINEL = "\N{SYMBOL FOR NULL}query\N{SYMBOL FOR NULL}"
_SLOT = "{behaviour}"

_HOW = re.compile(
    r"(?:please )?(?:(?:tell|show|teach|explain|describe)(?: to)?(?: me)?,? ?(?:step by step,? )?(?:exactly )?how to"
    r"|how (?:do|can|could|would|should|might) (?:i|we|you|one|someone|people)|how to"
    r"|what(?:'s| is| are) (?:the |a |an |some )?(?:\w+ )?(?:ways?|methods?|steps?)(?: for me)? to"
    r"|give (?:me )?(?:\w+[- ]){0,3}instructions (?:for how|on how|for|to)(?: to)?"
    r"|is there (?:a|any) way to|i (?:want|need|would like) to|can i|help me(?: to)?) (.+)",
    re.I | re.S,
)
_GET = re.compile(r"(?:please )?(?:give|get|find|i need)(?: me| us)? (.+)", re.I | re.S)
_TEXT = re.compile(r"(?:please )?(?:write|draft|compose|create|make up)(?: me)? (.+)", re.I | re.S)
_IMPERATIVE = re.compile(
    r"(?:please )?((?:list|describe|explain|develop|design|provide|generate|produce|teach|outline|convince|invent|plan"
    r"|make|build|name|suggest|summarise|summarize|argue|persuade|translate|compare|define|discuss) .+)",
    re.I | re.S,
)
_THIRD = {"i": "they", "my": "their", "me": "them", "mine": "theirs", "myself": "themselves", "am": "are"}
_SECOND = {"i": "you", "my": "your", "me": "you", "mine": "yours", "myself": "yourself", "am": "are"}


@dataclass(frozen=True, slots=True)
class Request:
    """A bare request, read.

    `category` is one of the eight for a harmful request, else "". `wrapper` names how it was dressed up, "" for not.
    `deed` and `task` say what is wanted as a bare infinitive ("kill a process"), of them and of you; `topic` is a run
    of words that carries the subject; `word` is the first loaded word, "" where there is none.
    """

    harmful: bool
    category: str
    wrapper: str
    deed: str
    task: str
    topic: str
    word: str
    form: Form


@dataclass(frozen=True, slots=True)
class Reading:
    """A whole chat, read: in which variant it was asked (one of our own, or "direct"), and the request."""

    variant: str
    query: str
    request: Request


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    folded: str
    category: str
    harmful: bool


@cache
def _bundled() -> tuple[_Entry, ...]:
    """Every bundled behaviour, longest first, so that the one found inside a query is the most specific one."""
    entries = []
    for name, harmful in (("harmful.yaml", True), ("benign.yaml", False)):
        rows: list[dict[str, Any]] = read_yaml(_BUNDLED / name)
        entries += [_Entry(row["text"], _fold(row["text"]), row["category"], harmful) for row in rows]
    return tuple(sorted(entries, key=lambda entry: -len(entry.folded)))


@cache
def _templates() -> tuple[tuple[str, str, str], ...]:
    """(id, text before the slot, text after it) of every bundled template."""
    rows: list[dict[str, Any]] = read_yaml(_BUNDLED / "templates.yaml")
    return tuple((row["id"], *map(str.strip, row["text"].split(_SLOT))) for row in rows)


@cache
def _frames() -> tuple[tuple[str, str, str], ...]:
    """(variant, instruction before the query, after it) for instructions in the user's message, longest first."""
    frames = []
    for name, variant in load_variants().items():
        if variant.placement == "user":
            before, _, after = variant.messages(_SENTINEL)[0]["content"].partition(_SENTINEL)
            frames.append((name, before, after))
    return tuple(sorted(frames, key=lambda frame: -len(frame[1]) - len(frame[2])))


@cache
def _systems() -> tuple[tuple[str, str], ...]:
    """(variant, instruction) for instructions in the system's message."""
    systems = [(n, v.messages("")[0]["content"]) for n, v in load_variants().items() if v.placement == "system"]
    return tuple(sorted(systems, key=lambda item: -len(item[1])))


def read(messages: Sequence[Message]) -> Reading:
    """Read a chat: the last user message is the request, the variant is told by our own instructions' literal text.

    Another wording in the user's message is part of the request (variant "direct"); another system message that
    asks for `<think>` is read as "short".
    """
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    user = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    if user.startswith(OPENING):
        user = user.partition(CLOSING)[2].strip()
    for name, instruction in _systems():
        if instruction in system:
            return Reading(name, user, read_request(user))
    if OPEN in system:
        return Reading("short", user, read_request(user))
    for name, before, after in _frames():
        if len(user) >= len(before) + len(after) and user.startswith(before) and user.endswith(after):
            query = user[len(before) : len(user) - len(after)]
            return Reading(name, query, read_request(query))
    return Reading("direct", user, read_request(user))


@lru_cache(maxsize=1024)  # the variants of one prompt are asked close together
def read_request(query: str) -> Request:
    """Read a bare request, dressed up or not."""
    if len(query) > _HEAD + _TAIL:
        query = f"{query[:_HEAD]}\n{query[-_TAIL:]}"
    folded = _fold(query)
    for entry in _bundled():
        if entry.folded in folded:
            return _request(entry.text, entry.harmful, entry.category, _wrapper_of(query, entry.folded == folded))
    alarm = lexicon().judge(folded)
    return _request(_core(query), alarm.harmful, alarm.category, alarm.wrapper)


def _wrapper_of(query: str, bare: bool) -> str:
    if bare:
        return ""
    text = query.strip()
    for name, before, after in _templates():
        if text.startswith(before) and text.endswith(after):
            return name
    return lexicon().judge(_fold(query)).wrapper


def _core(query: str) -> str:
    """The sentence of a request that says most of what is wanted."""
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+|[\n\"“”:;]+", query)]
    sentences = [part for part in sentences if 3 <= len(part.split()) <= 2 * _LONGEST_DEED]
    if not sentences:
        return " ".join(query.split()[:_LONGEST_DEED])
    alarms = lexicon().alarms(_fold(query))

    def weight(sentence: str) -> tuple[int, int]:
        folded = _fold(sentence)
        return sum(points for alarm, points in alarms.items() if alarm in folded), len(folded)

    return max(sentences, key=weight)


def _request(behaviour: str, harmful: bool, category: str, wrapper: str) -> Request:
    text = " ".join(re.sub(r"[^\w\s',.%-]|_", " ", behaviour).split()).strip(" .,'-")
    form, wanted = _wanted(text)
    deed, task = _in_persons(wanted, _THIRD), _in_persons(wanted, _SECOND)
    word = lexicon().alarming_word(deed)
    return Request(harmful, category if harmful else "", wrapper, deed, task, _topic(deed, word), word, form)


def _wanted(text: str) -> tuple[Form, str]:
    """What is wanted, as a bare infinitive, for any text at all."""
    words = text.split()
    if not words:
        return "facts", "start a conversation"
    if len(words) > _LONGEST_DEED:
        return "facts", f'do what the request calls "{" ".join(words[:12])}"'
    if found := _HOW.fullmatch(text):
        return "steps", _lower(found[1])
    if found := _TEXT.fullmatch(text):
        return "text", f"write {_lower(found[1])}"
    if found := _GET.fullmatch(text):
        return "facts", f"get {_lower(found[1])}"
    if found := _IMPERATIVE.fullmatch(text):
        return "list" if found[1].lower().startswith(("list", "name")) else "facts", _lower(found[1])
    return "facts", f'get a reply to "{text}"'


def _in_persons(wanted: str, persons: Mapping[str, str]) -> str:
    return re.sub(r"[\w']+", lambda found: persons.get(found[0].lower(), found[0]), wanted)


def _topic(deed: str, word: str) -> str:
    """The longest run of words that carry the subject, without the verb in front and the loaded word."""
    runs: list[list[str]] = [[]]
    for token in deed.replace('"', " ").split()[1:]:
        bare = token.strip(".,'")
        if not bare or bare.lower() in lexicon().empty or bare == word:
            runs.append([])
        else:
            runs[-1].append(bare)
            if token.endswith((".", ",")):
                runs.append([])
    best = max(runs, key=len)
    return " ".join(best[:4]) or deed.replace('"', "")


def _lower(text: str) -> str:
    first = text.split()[0]
    return text if len(first) > 1 and first[1:] != first[1:].lower() else text[0].lower() + text[1:]


def _fold(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".?!")
