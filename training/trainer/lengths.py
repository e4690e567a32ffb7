"""Rows that are longer than a recipe, or the student, allows: left out up to a stated share, never cut.

Reads rows, their lengths and the student's configuration; writes nothing. A row cut short would teach a thought without
its end or an answer without its end-of-turn. Used by `training.stage`, before the trainer is built.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.records import content_id
from training.mixtures.mixture import Mixture
from training.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Fitting:
    """The rows that fit, the tokens of each, and how many were left out."""

    mixture: Mixture
    lengths: tuple[int, ...]
    left_out: int


def fitting(mixture: Mixture, lengths: Sequence[int], recipe: Recipe, positions: int | None) -> Fitting:
    """Leave out what is longer than `max_length`, or than the student has positions for (None: any number); `lengths`
    are the tokens of each row, of a pair those of its longer side.

    Raises:
        UserError: more rows than `overlong_share` allows, or all of them; with what would help.
    """
    most = min(recipe.max_length, positions or recipe.max_length)
    kept = [(row, n) for row, n in zip(mixture.rows, lengths, strict=True) if n <= most]
    left_out = len(lengths) - len(kept)
    if not left_out:
        return Fitting(mixture, tuple(lengths), 0)
    share = left_out / len(lengths)
    if share > recipe.overlong_share or not kept:
        few = positions is not None and max(lengths) > positions
        bound = f"the {positions} positions of the student" if few else f"max_length {recipe.max_length}"
        remedy = "Choose a student with more" if few else f"Raise max_length to at least {max(lengths)}"
        raise UserError(
            f"{left_out} of {len(lengths)} rows are longer than {bound}, the longest has {max(lengths)} tokens, and "
            f"overlong_share allows {recipe.overlong_share:.1%}. {remedy}, or have them left out: --set "
            f"overlong_share={share + 0.0005:.3f}"
        )
    rows = tuple(row for row, _ in kept)
    content = content_id(*((row.config, row.id, *row.texts()) for row in rows))
    return Fitting(replace(mixture, rows=rows, content=content), tuple(n for _, n in kept), left_out)


def positions_of(checkpoint: Path) -> int | None:
    """How many tokens a student has positions for, stretched as its configuration says; None where that names none.

    Beyond them a model with a table of positions fails at a step, and one that turns its embeddings learns nonsense.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    before, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if isinstance(before, int) and isinstance(factor, int | float):
        positions = max(positions or 0, int(before * factor))
    return positions if isinstance(positions, int) and positions > 0 else None
