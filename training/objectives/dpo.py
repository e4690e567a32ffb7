"""DPO: of two responses to a prompt, the chosen one becomes likelier beside the rejected one. TRL's DPOTrainer.

Reads `prompt`, `chosen`, `rejected`: the configuration `preference` of a release. The loss is DPO's sigmoid or IPO's
square (`dpo.loss`), with the chosen side's negative log-likelihood beside it on request (`dpo.nll`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.mixtures.mixture import TrainingRow
from training.objective import PAIRS, Objective
from training.recipes.recipe import Recipe
from training.trainer.building import arguments_of, finished, responses_of, training_tokenizer, weights_of
from training.trainer.checkpoints import processes
from training.trainer.estimate import Cost


class Dpo(Objective):
    """Direct preference optimization."""

    form = PAIRS
    sides = ("chosen", "rejected")

    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> Any:
        """The DPOTrainer of a recipe."""
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

        from training.trainer.paced import LateReference, Ordered, UntilEnd

        class Student(Ordered, LateReference, DPOTrainer):  # type: ignore[misc,unused-ignore]
            rows_at_once = recipe.batch_size * accumulation * processes()

        own, tokenizer = recipe.dpo, training_tokenizer(recipe, checkpoint)
        arguments = DPOConfig(
            # What is longer was refused or left out before; nothing is cut here.
            max_length=None,
            loss_type=[own.loss, "sft"] if own.nll else [own.loss],
            loss_weights=[1.0, own.nll] if own.nll else None,
            beta=own.beta,
            precompute_ref_log_probs=own.precompute_ref_log_probs,
            **arguments_of(recipe, work, accumulation),
        )
        collator = UntilEnd(DataCollatorForPreference, tokenizer)
        dataset, model = responses_of(rows), weights_of(recipe, checkpoint)
        return finished(Student, recipe, arguments, dataset, tokenizer, model, data_collator=collator)

    def cost(self, recipe: Recipe) -> Cost:
        """Both sides at once, and the reference: a pass before the steps, or a model of its own beside them."""
        early = recipe.dpo.precompute_ref_log_probs
        held = not early and recipe.lora is None
        return Cost(sequences=2, reference=held, passes=1 / recipe.epochs if early else 1.0)


OBJECTIVE = Dpo()
