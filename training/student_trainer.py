"""TRL's SFTTrainer as recipes use it: rows in a seeded order, and the pace of each step in its log entry.

Reads and writes what SFTTrainer does. Tokens are those of the batches that a step takes: no batch is counted while it
is computed. `training.stage` builds the trainer, `training.steps` runs it.
"""

from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from training.paced import Paced
from training.sampler import SeededOrder


class StudentTrainer(Paced, SFTTrainer):  # type: ignore[misc,unused-ignore]
    """An SFTTrainer with an order and a pace.

    Args:
        rows_at_once: Rows of a whole step, over all processes: those that are grouped by length.
        grouped: Whether rows of like length go together; otherwise their order is random.
        settings: As SFTTrainer takes them.
    """

    def __init__(self, *, rows_at_once: int, grouped: bool, **settings: Any) -> None:
        self.rows_at_once = rows_at_once
        self.grouped = grouped
        self._labelled = 0
        self._held = 0
        super().__init__(**settings)

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        held: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in held["input_ids"]]
        return SeededOrder(lengths, self.rows_at_once, int(self.args.seed), grouped=self.grouped)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The batches of the next step, whose tokens are taken."""
        batches, labelled = super().get_batch_samples(*arguments, **options)
        self._labelled = int(labelled) if labelled is not None else 0
        self._held = sum(_tokens(batch) for batch in batches)
        return batches, labelled

    def _step_tokens(self, logs: dict[str, float]) -> tuple[float, float]:
        return self._labelled, self._held


def _tokens(batch: Any) -> int:
    """Tokens of one batch on this process, without padding."""
    attended = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if attended is None else attended.sum())
