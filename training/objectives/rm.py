"""RM: a model that gives a conversation one number, higher for the chosen side than for the rejected one.

Reads `prompt`, `chosen`, `rejected`, and with `rm.margin` `margin`: the configuration `preference` of a release. TRL's
RewardTrainer over the student's weights with a new head. What comes out is a sequence-classification model, with the
chat template that it was trained with: it scores texts and writes none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from training.mixtures.mixture import RowForm, TrainingRow
from training.objective import PAIRS, Objective
from training.recipes.recipe import Recipe
from training.trainer.building import arguments_of, finished, responses_of, training_tokenizer, weights_of
from training.trainer.checkpoints import processes


def graded_row(values: Mapping[str, Any], config: str) -> TrainingRow:
    """A pair with its margin, where the release has one.

    Raises:
        UserError: it is no pair, or the margin no number from 0.
    """
    row, margin = PAIRS.read(values, config), values.get("margin")
    if margin is not None and not (isinstance(margin, int | float) and 0 <= margin < 1e6):
        raise UserError(f"Row {row.id!r} of configuration '{config}': 'margin' is {margin!r}, not a number from 0.")
    return replace(row, margin=None if margin is None else float(margin))


class RewardModel(Objective):
    """Bradley-Terry on pairs."""

    form = RowForm(PAIRS.columns, graded_row)
    sides = ("chosen", "rejected")
    loss_on = "scored"
    scores = True

    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> Any:
        """The RewardTrainer of a recipe.

        Raises:
            UserError: margins are to count, and a row has none.
        """
        from trl.trainer.reward_config import RewardConfig
        from trl.trainer.reward_trainer import RewardTrainer

        from training.trainer.paced import Ordered

        class Student(Ordered, RewardTrainer):  # type: ignore[misc,unused-ignore]
            rows_at_once = recipe.batch_size * accumulation * processes()

        without = next((row for row in rows if row.margin is None), None)
        if recipe.rm.margin and without is not None:
            raise UserError(
                f"rm.margin=true, and row {without.id!r} of '{without.config}' has no margin. Leave it out."
            )
        if not recipe.rm.margin:
            rows = [replace(row, margin=None) for row in rows]
        shared = arguments_of(recipe, work, accumulation)
        arguments = RewardConfig(max_length=None, center_rewards_coefficient=recipe.rm.center or None, **shared)
        dataset, model = responses_of(rows), weights_of(recipe, checkpoint, scorer=True)
        return finished(Student, recipe, arguments, dataset, training_tokenizer(recipe, checkpoint), model)


OBJECTIVE = RewardModel()
