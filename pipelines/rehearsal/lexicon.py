"""The rehearsal teacher's word list: how alarming a text is, of which category, and how it is dressed up.

Reads `words.yaml`, which says how its entries are matched and what they weigh. Made for trying the machine out: it is
no safety filter, and nothing but the rehearsal teacher may lean on it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.settings.parts import Part, read_yaml, validated

_WORDS = Path(__file__).with_name("words.yaml")
_TOKEN = re.compile(r"[\w'-]+")
# A request shorter than this, in characters, has no room for a costume.
_COSTUME = 160
# Only what a request opens with tells that it asks for an explanation.
_OPENING = 40


class _Words(Part):
    threshold: int
    heavy: dict[str, tuple[str, ...]]
    loaded: tuple[str, ...]
    targets: tuple[str, ...]
    safe: tuple[str, ...]
    asking: tuple[str, ...]
    wrappers: dict[str, tuple[str, ...]]
    empty: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Cues:
    """Entries of the list, sorted by how they are looked for."""

    whole: frozenset[str]
    stems: tuple[str, ...]
    phrases: tuple[str, ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> "_Cues":
        listed = tuple(entries)
        single = [entry for entry in listed if " " not in entry]
        return cls(
            frozenset(entry[:-1] for entry in single if entry.endswith(".")),
            tuple(entry for entry in single if not entry.endswith(".")),
            tuple(entry for entry in listed if " " in entry),
        )

    def matches(self, text: str, tokens: Iterable[str]) -> list[str]:
        words = [token for token in tokens if token in self.whole or token.startswith(self.stems)]
        return words + [phrase for phrase in self.phrases if phrase in text]

    def count(self, text: str, tokens: Iterable[str]) -> int:
        return len(self.matches(text, tokens))


@dataclass(frozen=True, slots=True)
class Alarm:
    """What the words of a text say: `category` is "" where it is harmless, `wrapper` "" where it wears no costume."""

    harmful: bool
    category: str
    wrapper: str


class Lexicon:
    """`words.yaml`, ready for use. Texts are given folded: lower case, single blanks."""

    def __init__(self, path: Path = _WORDS) -> None:
        words = validated(_Words, read_yaml(path), str(path))
        self._threshold = words.threshold
        heavy = [entry for entries in words.heavy.values() for entry in entries]
        self._by_category = {name: _Cues.of(entries) for name, entries in words.heavy.items()}
        self._heavy = _Cues.of(heavy)
        self._loaded, self._targets = _Cues.of(words.loaded), _Cues.of(words.targets)
        self._safe, self._asking = _Cues.of(words.safe), _Cues.of(words.asking)
        self._wrappers = {name: _Cues.of(entries) for name, entries in words.wrappers.items()}
        self._alarming = _Cues.of([*words.loaded, *heavy])
        self.empty = words.empty
        self.categories = tuple(words.heavy)
        self.wrappers = tuple(words.wrappers)

    def points(self, text: str) -> int:
        """How alarming a text is, taken as it stands."""
        tokens = set(_TOKEN.findall(text))
        points = 2 * self._heavy.count(text, tokens) + self._loaded.count(text, tokens)
        if points == 0:
            return 0
        opening = text[:_OPENING]
        points += min(1, self._targets.count(text, tokens))
        points -= 2 * min(1, self._safe.count(text, tokens))
        return points - 2 * min(1, self._asking.count(opening, opening.split()[:1]))

    def judge(self, text: str) -> Alarm:
        """Whether a text that is not in the bundled set counts as harmful, of which category, and in which costume."""
        tokens = set(_TOKEN.findall(text))
        costumes = {}
        if len(text) >= _COSTUME:
            costumes = {name: cues.count(text, tokens) for name, cues in self._wrappers.items()}
        cues = sum(costumes.values())
        wrapper = max(costumes, key=lambda name: costumes[name]) if cues else ""
        if cues == 0:
            harmful = self.points(text) >= self._threshold
        else:
            harmful = cues > 1 or self._heavy.count(text, tokens) + self._loaded.count(text, tokens) > 0
        return Alarm(harmful, self._category(text, tokens) if harmful else "", wrapper)

    def _category(self, text: str, tokens: set[str]) -> str:
        """The category that most of the words speak for."""
        counts = {name: cues.count(text, tokens) for name, cues in self._by_category.items()}
        best = max(counts, key=lambda name: counts[name])
        return best if counts[best] else "illicit/violent"

    def alarms(self, text: str) -> dict[str, int]:
        """The alarming words and phrases of a text, with their points."""
        tokens = set(_TOKEN.findall(text))
        found = dict.fromkeys(self._loaded.matches(text, tokens), 1)
        return found | dict.fromkeys(self._heavy.matches(text, tokens), 2)

    def alarming_word(self, text: str) -> str:
        """The first loaded word of a text, as it stands there; "" for none."""
        cues = self._alarming
        return next(
            (t for t in _TOKEN.findall(text) if t.lower() in cues.whole or t.lower().startswith(cues.stems)), ""
        )


@cache
def lexicon() -> Lexicon:
    """The shipped word list, read once."""
    return Lexicon()
