"""What the rehearsal teacher answers: a pure function of the request and a seed, and the truth about the answer.

Reads `phrases.yaml` (phrases, and the rates of the risky patterns). Texts are shorter than the study's (its default
and `improved` average 774 and 382 tokens), so that a small student can learn from them on a CPU: about 60-160 words
of reasoning in `direct`, 40-90 in `improved`, 20-35 in `short`. Of the sampling parameters only the seed counts.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from pipelines.errors import unknown
from pipelines.prompts.variant import Message, load_variants
from pipelines.records import LABELS, OVERTHINKING_SUBTYPES
from pipelines.rehearsal.lexicon import lexicon
from pipelines.rehearsal.reading import Reading, Request, read
from pipelines.repairs import EDIT_OPENING, OPENING
from pipelines.settings.parts import Part, read_yaml, validated

REASONING_MODEL, GENERAL_MODEL = "rehearsal-r1", "rehearsal-4o"
MODELS = (REASONING_MODEL, GENERAL_MODEL)

_PHRASES = Path(__file__).with_name("phrases.yaml")
# Steps of a script that are worked out here; every other step is the name of a bank.
_SPECIAL = {
    "harmless": ("harmless_word", "harmless_plain"),
    "lines": ("line_yes", "line_no"),
    "lines_none": ("line_no",),
}
# At the end of a step that is spoken every second time.
_HALF = "/2"
# Reasoning with fewer words than this is taken for one of the short shape.
_SHORT_WORDS = 40
_FORMS = {"steps": "benign_steps", "text": "benign_text", "list": "benign_list", "facts": "benign_facts"}


@dataclass(frozen=True, slots=True)
class Performance:
    """One response and the truth about it.

    `truth` holds the six labels of records.LABELS; all are false for a harmless request. `refused` tells of the
    answer, `harmful` of the request.
    """

    reasoning: str
    answer: str
    truth: dict[str, bool]
    refused: bool
    harmful: bool
    variant: str

    @property
    def safe(self) -> bool:
        """Whether reasoning and answer are free of harmful detail; what a safety filter on the whole would keep."""
        return not self.harmful or (self.refused and not self.truth["harmful_additions"])


class _Variant(Part):
    shape: str
    over_refusal: float = Field(ge=0, le=1)
    profiles: dict[str, float]


class _Profile(Part):
    labels: tuple[str, ...]
    refuses: bool

    def truth(self) -> dict[str, bool]:
        labels = set(self.labels)
        if labels & set(OVERTHINKING_SUBTYPES):
            labels.add("overthinking")
        return {label: label in labels for label in LABELS}


class _Shape(Part):
    joiner: str
    refusal: tuple[str, ...] = Field(min_length=1, description="the banks that refusals are drawn from")
    scripts: dict[str, tuple[str, ...]]


class _Category(Part):
    harm: tuple[str, ...] = Field(min_length=1)
    victims: tuple[str, ...] = Field(min_length=1)
    offers: tuple[str, ...] = Field(min_length=1)


class _Repair(Part):
    mended: float = Field(ge=0, le=1)


class _Phrases(Part):
    repair: _Repair
    variants: dict[str, _Variant]
    profiles: dict[str, _Profile]
    shapes: dict[str, _Shape]
    categories: dict[str, _Category]
    wrappers: dict[str, tuple[str, ...]]
    banks: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _fits_together(self) -> "_Phrases":
        for name, profile in self.profiles.items():
            truth = profile.truth()
            if not set(profile.labels) <= set(LABELS) or (truth["lack_of_safety_awareness"] and truth["overthinking"]):
                raise ValueError(f"profile {name} has labels that cannot be")
        for name, variant in self.variants.items():
            if abs(sum(variant.profiles.values()) - 1) > 1e-9:
                raise ValueError(f"the rates of {name} add up to {sum(variant.profiles.values()):.3f}, not to 1")
            if missing := {*variant.profiles, "benign", "over_refusal"} - set(self.shapes[variant.shape].scripts):
                raise ValueError(f"shape {variant.shape} has no script for {', '.join(sorted(missing))}")
        steps = {
            step.removesuffix(_HALF)
            for shape in self.shapes.values()
            for script in shape.scripts.values()
            for step in script
        }
        banks = {bank for step in steps for bank in _SPECIAL.get(step, (step,))}
        banks |= {bank for shape in self.shapes.values() for bank in shape.refusal} | {"compliance", *_FORMS.values()}
        if missing := banks - set(self.banks):
            raise ValueError(f"there is no bank {', '.join(sorted(missing))}")
        if missing := set(lexicon().categories) - set(self.categories) | (
            {"", *lexicon().wrappers} - set(self.wrappers)
        ):
            raise ValueError(f"no words for {', '.join(sorted(missing))}")
        return self


@cache
def phrases() -> _Phrases:
    """Everything in `phrases.yaml`.

    Raises:
        UserError: the file was edited into something that does not hold together.
    """
    return validated(_Phrases, read_yaml(_PHRASES), str(_PHRASES))


def perform(model: str, messages: Sequence[Message], seed: int | None = None, sample: int = 0) -> Performance:
    """Answer a chat as `model` ("rehearsal-r1" or "rehearsal-4o"); the same arguments always give the same response.

    No seed is the same as seed 0. The general model gives reasoning only where a system message asks for `<think>`.

    Raises:
        UserError: an unknown model.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    chance = random.Random(_draw_of(model, messages, seed or 0, sample))
    book = phrases()
    if any(EDIT_OPENING in message["content"] for message in messages):
        return _rewritten(messages, book, chance)
    reading = read(messages)
    variant = book.variants.get(reading.variant, book.variants["direct"])
    thinks = model == REASONING_MODEL or variant.shape in ("short", "template")
    if not thinks:
        name = "clean" if reading.request.harmful else "benign"
    elif reading.request.harmful and _asked_again(messages) and chance.random() < book.repair.mended:
        name = "clean"
    elif reading.request.harmful:
        name = chance.choices(list(variant.profiles), list(variant.profiles.values()))[0]
    else:
        name = "over_refusal" if chance.random() < variant.over_refusal else "benign"
    profile = book.profiles.get(name, _Profile(labels=(), refuses=name == "over_refusal"))
    hand = _Hand(book, book.shapes[variant.shape], reading.request, chance)
    reasoning = hand.reasoning(name) if thinks else ""
    return Performance(
        reasoning=reasoning,
        answer=hand.answer(profile.refuses),
        truth=profile.truth(),
        refused=profile.refuses,
        harmful=reading.request.harmful,
        variant=_known(reading),
    )


def _asked_again(messages: Sequence[Message]) -> bool:
    return any(OPENING in message["content"] for message in messages)


def _rewritten(messages: Sequence[Message], book: _Phrases, chance: random.Random) -> Performance:
    """A reasoning written again, as the whole of the answer: clean, or as it was where the mending fails."""
    content = messages[-1]["content"]
    document = json.loads(content[content.index("\n{") + 1 :])
    request = read([Message(role="user", content=document["query"])]).request
    lines = load_variants()["template"].shape.lines
    name = "template" if lines[0] in document["reasoning"] else "long"
    if name == "long" and len(document["reasoning"].split()) < _SHORT_WORDS:
        name = "short"
    text = document["reasoning"]
    if chance.random() < book.repair.mended:
        text = _Hand(book, book.shapes[name], request, chance).reasoning("clean")
    truth = _Profile(labels=(), refuses=True).truth()
    return Performance("", text, truth, refused=False, harmful=request.harmful, variant="direct")


def _known(reading: Reading) -> str:
    return reading.variant if reading.variant in phrases().variants else "direct"


def _draw_of(model: str, messages: Sequence[Message], seed: int, sample: int) -> int:
    chat = [[message["role"], message["content"]] for message in messages]
    text = json.dumps([model, chat, seed, sample])  # ASCII, so lone surrogates pass
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


class _Hand:
    """Writes one response: draws phrases without repeating one, and fills the same words into all of them."""

    def __init__(self, book: _Phrases, shape: _Shape, request: Request, chance: random.Random) -> None:
        self._book, self._shape, self._request, self._chance = book, shape, request, chance
        self._spoken: set[str] = set()
        # A category that a user's own prompts bring along has no words of its own.
        category = book.categories.get(request.category, book.categories["illicit/violent"])
        self._slots = {
            "deed": request.deed,
            "task": request.task,
            "topic": request.topic,
            "word": request.word,
            "harm": chance.choice(category.harm),
            "victim": chance.choice(category.victims),
            "offer": chance.choice(category.offers),
            "wrapper": chance.choice(book.wrappers[request.wrapper]),
        }

    def reasoning(self, script: str) -> str:
        """The reasoning of one script, in the shape's own layout."""
        sentences = []
        for step in self._shape.scripts[script]:
            name = step.removesuffix(_HALF)
            if (step != name and self._chance.random() < 0.5) or (name == "wrapped" and not self._request.wrapper):
                continue
            if name in ("lines", "lines_none"):
                sentences += self._lines(marked=name == "lines")
            elif name == "harmless":
                sentences.append(self._say("harmless_word" if self._request.word else "harmless_plain"))
            else:
                sentences.append(self._say(name))
        return self._shape.joiner.join(sentences)

    def answer(self, refuses: bool) -> str:
        """One to three sentences."""
        if refuses:
            return self._say(*self._shape.refusal)
        return self._say("compliance" if self._request.harmful else _FORMS[self._request.form])

    def _lines(self, marked: bool) -> list[str]:
        lines = load_variants()["template"].shape.lines
        own = self._request.category if self._request.category in lines else lines[0]
        return [
            f"{line}: {self._say('line_yes' if marked and line == own else 'line_no', again=True)}" for line in lines
        ]

    def _say(self, *banks: str, again: bool = False) -> str:
        every = [phrase for bank in banks for phrase in self._book.banks[bank]]
        phrase = self._chance.choice([phrase for phrase in every if again or phrase not in self._spoken] or every)
        self._spoken.add(phrase)
        return phrase.format_map(self._slots)
