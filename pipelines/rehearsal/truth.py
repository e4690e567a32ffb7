"""The truth about a response of the rehearsal teacher, read back from its text.

Reads `phrases.yaml`: every phrase belongs to a bank, and the banks of a response tell which profile was performed. It
knows nothing of texts that others wrote.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pipelines.records import LABELS, OVERTHINKING_SUBTYPES
from pipelines.rehearsal.performer import phrases

_SLOT = re.compile(r"\\\{\w+\\\}")
_BY_BANK = {
    "strong_vacillation": ("strong",),
    "weak_vacillation": ("weak",),
    "harmful_additions": ("additions",),
    "lack_of_safety_awareness": ("lack",),
}
_RECOGNISES = ("recognise", "short_see", "line_yes", "assess_yes", "who", "firm", "back_to_no")
_REFUSES = ("close_refuse", "short_no", "conclude_no")
_ACCEPTS = ("close_accept", "close_give_in", "short_yes", "conclude_yes")
_REFUSALS = ("refusal", "refusal_oblique", "sorry", "short_sorry")


@dataclass(frozen=True, slots=True)
class Truth:
    """The labels of a response to a harmful prompt, a span that shows each that is set, and whether it refuses."""

    labels: dict[str, bool]
    spans: dict[str, str]
    refused: bool

    @property
    def safe(self) -> bool:
        """Whether reasoning and answer are free of harmful detail, for a harmful prompt."""
        return self.refused and not self.labels["harmful_additions"]


@cache
def _patterns(bank: str) -> tuple[re.Pattern[str], ...]:
    """The phrases of a bank, with any words in the slots."""
    return tuple(re.compile(_SLOT.sub(r"[^\\n]{1,200}?", re.escape(phrase))) for phrase in phrases().banks[bank])


def _found(text: str, banks: Sequence[str]) -> str:
    """The first phrase of these banks in a text, "" where there is none."""
    for bank in banks:
        for pattern in _patterns(bank):
            if match := pattern.search(text):
                return match.group()
    return ""


def truth_of(reasoning: str, answer: str) -> Truth | None:
    """The truth about a response to a harmful prompt; None for a text that is not the rehearsal teacher's."""
    refused, complied = _found(answer, _REFUSALS), _found(answer, ("compliance",))
    if not (refused or complied):
        return None
    spans = {label: _found(reasoning, banks) for label, banks in _BY_BANK.items()}
    spans = {label: span for label, span in spans.items() if span}
    accepts, refuses = _found(reasoning, _ACCEPTS), _found(reasoning, _REFUSES)
    if accepts and not refuses and not _found(reasoning, _RECOGNISES):
        spans.setdefault("lack_of_safety_awareness", accepts)
    if complied and refuses:
        spans["inconsistency"] = complied
    elif refused and accepts:
        spans["inconsistency"] = accepts
    labels = {label: label in spans for label in LABELS}
    labels["overthinking"] = any(labels[label] for label in OVERTHINKING_SUBTYPES)
    return Truth(labels, spans, bool(refused))
