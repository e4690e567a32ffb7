"""The columns of `preference`, `unpaired`, `prompts` and `steps`, and what each is for. Reads and writes nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from cards.rows.schema import COLUMNS, INLINE, MESSAGES, Column, keyed

_COMMON = {column.name: column for column in COLUMNS}
_FAULTS = "by comma; empty where the judges see none"
_QUOTES = "Label to the span that a judge quoted"
_PROMPT = Column("prompt", MESSAGES, "The bare prompt.", "one turn")
_ORIGINS = "repair: an attempt and its mended successor; sample: two answers in one variant; variant: in two variants."


def _text(name: str, meaning: str, example: str) -> Column:
    return Column(name, pa.string(), meaning, example)


def _count(name: str, meaning: str, example: str, null: str = "never null") -> Column:
    return Column(name, pa.int64(), meaning, example, null)


def _same(*names: str) -> tuple[Column, ...]:
    """Columns that the variants have as well."""
    return tuple(_COMMON[name] for name in names)


_FROM = _same("prompt_id", "source", "source_license", "run_id")
_ABOUT = _same("category", "behaviour_id", "template_id")
_PREFERENCE = (
    _text("id", "A hash of both responses' ids.", "1c9f0b6f2f0e4a57"),
    _text("origin", _ORIGINS, "repair"),
    _text("pattern", "The fault of `rejected`; the first of `faults`.", "strong_vacillation"),
    _count("margin", "Faults of `rejected` less those of `chosen`, which has none.", "1"),
    _PROMPT,
    Column("chosen", MESSAGES, f"The response without a fault, {INLINE}.", "one turn"),
    Column("rejected", MESSAGES, f"The response with faults, {INLINE}.", "one turn"),
    _text("faults", f"All faults of `rejected`, {_FAULTS}.", "strong_vacillation,no_refusal"),
    _text("evidence", f"{_QUOTES} in `rejected`, as JSON.", "{}"),
    *_same("kind"),
    *_ABOUT,
    _text("chosen_variant", "The variant of `chosen`.", "improved"),
    _text("rejected_variant", "The variant of `rejected`.", "direct"),
    _count("chosen_words", "Words of `chosen`.", "90"),
    _count("rejected_words", "Words of `rejected`.", "120"),
    _text("chosen_id", "The `id` of `chosen` in its own configuration.", "05e04fe3dcff0eba"),
    _text("rejected_id", "The response's id in the run.", "869cfa8bf5349882"),
    *_FROM,
)
_UNPAIRED = (
    *_same("id"),
    Column("label", pa.bool_(), "Whether the response is without a fault.", "true"),
    *_same("kind", "variant"),
    _PROMPT,
    Column("completion", MESSAGES, f"The response, {INLINE}.", "one turn"),
    _text("faults", f"Its faults, {_FAULTS}.", "unsafe"),
    _text("evidence", f"{_QUOTES}, as JSON.", "{}"),
    *_ABOUT,
    *_FROM,
)
_PROMPTS = (
    _text("id", "The prompt: `prompt_id` elsewhere.", "6acbcb0b5a630ccd"),
    *_same("kind"),
    _text("expected", "What a good response does: refusal or help.", "refusal"),
    *_same("category"),
    _PROMPT,
    _text("behaviour", "The bare request, without the template.", "Which spices go into a pumpkin soup?"),
    *_same("behaviour_id", "template_id", "source", "source_license", "run_id"),
)
_STEPS = (
    *_same("id"),
    _text("labelled_by", "quotes: judges quoted a sentence; verdict: they found no pattern at all.", "quotes"),
    _count("first_wrong", "The first sentence that is false, from 0.", "3", "no sentence is"),
    _text("faults", f"Patterns of the reasoning (an inconsistency is the answer's), {_FAULTS}.", "strong_vacillation"),
    _text("prompt", "The bare prompt, as a text.", "Which spices go into a pumpkin soup?"),
    Column("completions", pa.list_(pa.string()), "The sentences of the reasoning.", "8 sentences"),
    Column("labels", pa.list_(pa.bool_()), "Of each, false where a judge's quote touches it, else true.", "8 flags"),
    _text("evidence", f"{_QUOTES}, as a JSON list of such objects.", "[{}]"),
    *_same("kind"),
    *_ABOUT,
    *_same("variant"),
    *_FROM,
)


class Objective(NamedTuple):
    """One configuration: its columns, what it is for, and whether it holds responses that the judges turned down."""

    columns: tuple[Column, ...]
    purpose: str
    rejected: bool


OBJECTIVES = {
    "preference": Objective(_PREFERENCE, "Pairs of responses to one prompt, for DPO and reward models.", True),
    "unpaired": Objective(_UNPAIRED, "Single responses with a label, for KTO.", True),
    "prompts": Objective(_PROMPTS, "Prompts with what a verifier needs, for GRPO and RLOO.", False),
    "steps": Objective(_STEPS, "Reasoning sentence by sentence, for stepwise supervision.", True),
}


def columns_of(name: str, reasoning_key: str) -> tuple[Column, ...]:
    """The columns of a configuration: of a variant, or one of OBJECTIVES."""
    return keyed(OBJECTIVES[name].columns if name in OBJECTIVES else COLUMNS, reasoning_key)


def reasoning_key_of(lineage: Mapping[str, Any]) -> str:
    """Where a release's conversations have the reasoning; inline in releases of before."""
    return str(lineage["config"].get("release", {}).get("reasoning_key", "inline")) if "config" in lineage else "inline"


def all_rows(lineage: dict[str, Any]) -> dict[str, int]:
    """Rows of every configuration that has any, the objectives' after the variants'."""
    counts = {**lineage["rows"], **{name: one["rows"] for name, one in lineage.get("objectives", {}).items()}}
    return {name: count for name, count in counts.items() if count}


def holding_rejected(lineage: dict[str, Any]) -> list[str]:
    """The configurations that hold responses which the judges turned down."""
    return [name for name, one in lineage.get("objectives", {}).items() if one["rows"] and OBJECTIVES[name].rejected]
