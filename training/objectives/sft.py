"""SFT: the student learns to write what is in the row. TRL's SFTTrainer, loss on the assistant's tokens (`loss_on`).

Reads conversations (`messages`): every variant's configuration of a release.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from training.mixtures.mixture import TrainingRow
from training.objective import Objective
from training.proof.supervision import SupervisionProof, prove
from training.recipes.recipe import Recipe
from training.trainer.building import arguments_of, finished, training_tokenizer, weights_of
from training.trainer.checkpoints import processes
from training.trainer.estimate import Cost

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from training.trainer.student_trainer import StudentTrainer


class Sft(Objective):
    """Supervised fine-tuning."""

    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> "StudentTrainer":
        """See `build_trainer`."""
        return build_trainer(recipe, rows, checkpoint, work, accumulation)

    def prove(
        self, trainer: Any, rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase", recipe: Recipe
    ) -> SupervisionProof:
        """Every row's reasoning, answer and end-of-turn are labelled, and nothing else."""
        return prove(trainer, rows, serving, recipe.batch_size, recipe.loss_on)

    def cost(self, recipe: Recipe) -> Cost:
        """With the divergence on benign rows the reference, and two further passes over these."""
        held = recipe.benign_kl > 0
        return Cost(reference=held and recipe.lora is None, passes=2.0 if held else 0.0)


def build_trainer(
    recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int = 1
) -> "StudentTrainer":
    """The SFTTrainer of a recipe, ready to train: model loaded, rows rendered and tokenised.

    Args:
        checkpoint: The student's folder.
        work: The trainer's folder: checkpoints and logs.
        accumulation: Batches a step on each process.

    Raises:
        UserError: the divergence on benign rows is to count, and there are none.
    """
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig

    from training.trainer.student_trainer import BENIGN, StudentTrainer

    arguments = SFTConfig(
        max_length=recipe.max_length,
        packing=recipe.packing,
        assistant_only_loss=recipe.loss_on == "completion",
        **arguments_of(recipe, work, accumulation),
    )
    # Nothing but `messages`: a column named `prompt` would send TRL down its prompt-completion path.
    values: list[dict[str, Any]] = [{"messages": [dict(turn) for turn in row.messages]} for row in rows]
    reference = None
    if recipe.benign_kl:
        if all(row.kind != "benign" for row in rows):
            raise UserError("benign_kl is for benign rows, and none is drawn: --set mixture.benign=100, or benign_kl=0")
        values = [{**value, BENIGN: row.kind == "benign"} for value, row in zip(values, rows, strict=True)]
        # Under adapters the student without them is what it was.
        reference = weights_of(recipe, checkpoint) if recipe.lora is None else None
    messages = Dataset.from_list(values)
    tokenizer, model = training_tokenizer(recipe, checkpoint), weights_of(recipe, checkpoint)
    at_once = recipe.batch_size * accumulation * processes()
    order: dict[str, Any] = {"rows_at_once": at_once, "grouped": not recipe.packing}
    order |= {"benign_kl": recipe.benign_kl, "reference": reference}
    trainer: StudentTrainer = finished(StudentTrainer, recipe, arguments, messages, tokenizer, model, **order)
    return trainer


OBJECTIVE = Sft()
