"""TRL's SFTTrainer as recipes use it: rows in a seeded order, and the pace of each step in its log entry.

Reads and writes what SFTTrainer does. Beside its loss, every entry has `trained_tokens_per_s`, labelled tokens over all
processes, and `mfu`, the share of the machine's products that the step made use of. TensorBoard, wandb and trackio show
both. `training.sft` builds the trainer, `training.steps` runs it.
"""

import time
from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from training.estimate import Plan, flops_of
from training.sampler import SeededOrder


class StudentTrainer(SFTTrainer):  # type: ignore[misc,unused-ignore]
    """An SFTTrainer with an order and a pace.

    Args:
        rows_at_once: Rows of a whole step, over all processes: those that are grouped by length.
        grouped: Whether rows of like length go together; otherwise their order is random.
        settings: As SFTTrainer takes them.
    """

    def __init__(self, *, rows_at_once: int, grouped: bool, **settings: Any) -> None:
        self.rows_at_once = rows_at_once
        self.grouped = grouped
        self._begun = time.monotonic()
        self._labelled = 0
        self._held = 0
        self._flops_a_token = 0.0
        self._peak = 0.0
        super().__init__(**settings)

    def measure_against(self, plan: Plan) -> None:
        """Log `mfu` from now on, by the plan's parameters and its device's products."""
        self._flops_a_token = flops_of(plan.parameters, plan.trained, tokens=1)
        self._peak = plan.peak_flops

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        held: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in held["input_ids"]]
        return SeededOrder(lengths, self.rows_at_once, int(self.args.seed), grouped=self.grouped)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The batches of the next step, which begins here: its clock and its tokens are taken."""
        batches, labelled = super().get_batch_samples(*arguments, **options)
        self._begun = time.monotonic()
        self._labelled = int(labelled) if labelled is not None else 0
        self._held = sum(_tokens(batch) for batch in batches)
        return batches, labelled

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write an entry, that of a step with its pace."""
        if "loss" in logs:
            seconds = max(time.monotonic() - self._begun, 1e-9)
            logs["trained_tokens_per_s"] = self._labelled / seconds
            if self._peak:
                logs["mfu"] = self._flops_a_token * self._held / seconds / self._peak
        super().log(logs, start_time)


def _tokens(batch: Any) -> int:
    """Tokens of one batch on this process, without padding."""
    attended = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if attended is None else attended.sum())
