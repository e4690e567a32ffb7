"""What TRL's trainers have in common here: pace in the logs, and, but for SFT's, end-of-turns and a late reference.

Reads and writes what TRL's trainers do; each class here goes before one of them. Beside its loss, every log entry has
`trained_tokens_per_s` (those that the loss is on, over all processes), `mfu`, and where they are counted by batch
`trained_tokens`. TensorBoard, wandb and trackio show them. The files of training/objectives build the trainers,
`training.trainer.steps` runs them.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import Trainer

from training.trainer.estimate import Plan, flops_of
from training.trainer.sampler import SeededOrder

_RESPONSES = ("chosen_ids", "rejected_ids", "completion_ids", "KL_completion_ids")


class UntilEnd:
    """A collator's rows without what a chat template writes after the end-of-turn: it is nobody's choice."""

    def __init__(self, collator: Callable[..., Any], tokenizer: Any) -> None:
        self._end = int(tokenizer.eos_token_id)
        filler = self._end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._collate = collator(pad_token_id=filler)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """The batch of some rows."""
        return self._collate(
            [{key: self._cut(value) if key in _RESPONSES else value for key, value in row.items()} for row in examples]
        )

    def _cut(self, ids: list[int]) -> list[int]:
        return ids[: len(ids) - ids[::-1].index(self._end)] if self._end in ids else ids


class Paced(Trainer):  # type: ignore[misc,unused-ignore]
    """Logs how quickly a step was, and what share of the machine's products it made use of (`mfu`)."""

    _begun = 0.0
    _plan: Plan | None = None

    def measure_against(self, plan: Plan) -> None:
        """Log `mfu` from now on, by the plan's parameters and its device's products."""
        self._plan = None if plan.written else plan

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The batches of the next step, which begins here."""
        found = super().get_batch_samples(*arguments, **options)
        self._begun = time.monotonic()
        return found

    def _step_tokens(self, logs: dict[str, float]) -> tuple[float, float]:
        """How many tokens the step's loss is on over all processes, and how many a process computed."""
        raise NotImplementedError

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write an entry, that of a step with its pace."""
        if "loss" in logs:
            on, held = self._step_tokens(logs)
            seconds = max(time.monotonic() - self._begun, 1e-9)
            logs["trained_tokens_per_s"] = on / seconds
            if self._plan is not None:
                flops = held * flops_of(self._plan.parameters, self._plan.trained, tokens=1)
                logs["mfu"] = flops / seconds / self._plan.peak_flops
        super().log(logs, start_time)


class Counted(Paced):
    """Counts the tokens of each batch when its loss is computed."""

    _on = 0
    _held = 0

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The batches of the next step, of which nothing is counted yet."""
        self._on, self._held = 0, 0
        return super().get_batch_samples(*arguments, **options)

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """The loss of a batch, whose tokens are counted."""
        self._on += int(inputs.get("completion_mask", inputs.get("attention_mask")).sum())
        self._held += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else 0
        return super().compute_loss(model, inputs, *arguments, **options)

    def _step_tokens(self, logs: dict[str, float]) -> tuple[float, float]:
        import torch

        counted = torch.tensor([self._on, self._held], device=self.accelerator.device)
        on, held = self.accelerator.reduce(counted, "sum").tolist()
        logs["trained_tokens"] = on
        return on, held / self.accelerator.num_processes


class Ordered(Counted):
    """Takes pairs of like length together, in an order that seed and epoch alone decide."""

    rows_at_once = 1

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        held: Any = self.train_dataset if train_dataset is None else train_dataset
        sides = zip(held["chosen_ids"], held["rejected_ids"], strict=True)
        lengths = [len(chosen) + len(rejected) for chosen, rejected in sides]
        return SeededOrder(lengths, self.rows_at_once, int(self.args.seed), grouped=True)


class LateReference(Trainer):  # type: ignore[misc,unused-ignore]
    """Has the reference's log-probabilities when training begins, and not when the trainer is built: a proof that
    fails, a plan that does not fit and `--check` need not wait for them. They are the student's before any step, since
    a checkpoint is loaded after them."""

    train_dataset: Any
    _late = True

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        # FSDP lays the weights out when training begins; the reference that TRL holds for it is gone by then.
        if self._late and not self.is_fsdp_enabled:
            return dataset
        bars = os.environ.get("TQDM_DISABLE")
        os.environ["TQDM_DISABLE"] = "1"
        try:
            return super()._precompute_ref_logps(dataset, name, batch_size)
        finally:
            os.environ.pop("TQDM_DISABLE") if bars is None else os.environ.__setitem__("TQDM_DISABLE", bars)

    def train(self, *arguments: Any, **options: Any) -> Any:
        """The reference first, then the steps."""
        if self.args.precompute_ref_log_probs and self._late and not self.is_fsdp_enabled:
            self._late = False
            self.train_dataset = self._precompute_ref_logps(
                self.train_dataset, "train", self.args.per_device_train_batch_size
            )
        return super().train(*arguments, **options)
