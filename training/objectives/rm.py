"""RM: a model that gives a conversation one number, higher for the chosen side than for the rejected one.

Reads `prompt`, `chosen`, `rejected`: the configuration `preference` of a release. TRL's RewardTrainer over the
student's weights with a new head. What comes out is a sequence-classification model, with the chat template that it was
trained with: it scores texts and writes none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.building import arguments_of, finished, responses_of, training_tokenizer, weights_of
from training.checkpoints import processes
from training.mixture import TrainingRow
from training.objective import PAIRS, Objective
from training.recipe import Recipe


class RewardModel(Objective):
    """Bradley-Terry on pairs."""

    form = PAIRS
    sides = ("chosen", "rejected")
    loss_on = "scored"
    scores = True

    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> Any:
        """The RewardTrainer of a recipe."""
        from trl.trainer.reward_config import RewardConfig
        from trl.trainer.reward_trainer import RewardTrainer

        from training.paced import Ordered

        class Student(Ordered, RewardTrainer):  # type: ignore[misc,unused-ignore]
            rows_at_once = recipe.batch_size * accumulation * processes()

        shared = arguments_of(recipe, work, accumulation)
        arguments = RewardConfig(max_length=None, center_rewards_coefficient=recipe.rm.center or None, **shared)
        dataset, model = responses_of(rows), weights_of(recipe, checkpoint, scorer=True)
        return finished(Student, recipe, arguments, dataset, training_tokenizer(recipe, checkpoint), model)


OBJECTIVE = RewardModel()
