"""Rows that are longer than a recipe allows: left out up to a stated share, never cut.

Reads rows and the student's serving tokenizer; writes nothing. A row cut short would teach a thought without its end or
an answer without its end-of-turn. Used by `training.sft`, before the trainer is built.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.errors import UserError
from pipelines.records import content_id
from training.mixture import Mixture
from training.recipe import Recipe
from training.supervision import tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Fitting:
    """The rows that fit, the tokens of each, and how many were left out."""

    mixture: Mixture
    lengths: tuple[int, ...]
    left_out: int


def fitting(mixture: Mixture, serving: "PreTrainedTokenizerBase", recipe: Recipe) -> Fitting:
    """Leave out what is longer than `max_length`.

    Raises:
        UserError: more rows than `overlong_share` allows, or all of them; with what would help.
    """
    lengths = tokens_of(mixture.rows, serving)
    kept = [(row, n) for row, n in zip(mixture.rows, lengths, strict=True) if n <= recipe.max_length]
    left_out = len(lengths) - len(kept)
    if not left_out:
        return Fitting(mixture, tuple(lengths), 0)
    share = left_out / len(lengths)
    if share > recipe.overlong_share or not kept:
        raise UserError(
            f"{left_out} of {len(lengths)} rows are longer than max_length {recipe.max_length}, the longest has "
            f"{max(lengths)} tokens, and overlong_share allows {recipe.overlong_share:.1%}. Raise max_length to "
            f"at least {max(lengths)}, or have them left out: --set overlong_share={share + 0.0005:.3f}"
        )
    rows = tuple(row for row, _ in kept)
    content = content_id(*((row.config, row.id, row.messages) for row in rows))
    return Fitting(replace(mixture, rows=rows, content=content), tuple(n for _, n in kept), left_out)
