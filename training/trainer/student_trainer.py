"""TRL's SFTTrainer as recipes use it: rows in a seeded order, the pace of each step in its log entry, and on request a
loss that holds benign rows to the student as it was.

Reads and writes what SFTTrainer does. Tokens are those of the batches that a step takes: no batch is counted while it
is computed. `training.stage` builds the trainer, `training.trainer.steps` runs it.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from training.trainer.paced import Paced
from training.trainer.sampler import SeededOrder

# The column, and the part of a batch, that says which rows are benign.
BENIGN = "benign"


class StudentTrainer(Paced, SFTTrainer):  # type: ignore[misc,unused-ignore]
    """An SFTTrainer with an order and a pace.

    Args:
        rows_at_once: Rows of a whole step, over all processes: those that are grouped by length.
        grouped: Whether rows of like length go together; otherwise their order is random.
        benign_kl: Weight of KL(before || now) on the labelled tokens of rows whose column `benign` is true.
        reference: The student as it was; None where its adapters are turned off for that.
        settings: As SFTTrainer takes them.
    """

    data_collator: Any

    def __init__(
        self, *, rows_at_once: int, grouped: bool, benign_kl: float = 0.0, reference: Any = None, **settings: Any
    ) -> None:
        self.rows_at_once = rows_at_once
        self.grouped = grouped
        self._labelled = 0
        self._held = 0
        self._benign_kl = benign_kl
        super().__init__(**settings)
        if benign_kl:
            self.data_collator = _Marked(self.data_collator)
            self._reference = reference
            if reference is not None:
                reference.eval().requires_grad_(False).to(self.accelerator.device)

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

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self._benign_kl and BENIGN not in self._signature_columns:
            self._signature_columns.append(BENIGN)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """SFT's loss, and the divergence on benign rows beside it."""
        benign = inputs.pop(BENIGN, None)
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if benign is None or not benign.any():
            return found
        loss, outputs = found if return_outputs else (found, None)
        loss = loss + self._benign_kl * self._divergence(model, inputs, benign, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _divergence(self, model: Any, inputs: Any, benign: Any, step_tokens: Any) -> Any:
        """KL(before || now) a labelled token of the step, summed over the benign rows' ones."""
        rows = {key: inputs[key][benign] for key in ("input_ids", "attention_mask")}
        labelled = inputs["labels"][benign][:, 1:] != -100
        now = model(**rows, use_cache=False).logits[:, :-1][labelled].float().log_softmax(-1)
        inner = self.accelerator.unwrap_model(model)
        student = inner if self._reference is None else self._reference
        with torch.no_grad(), nullcontext() if self._reference is not None else inner.disable_adapter():
            before = student(**rows, use_cache=False).logits[:, :-1][labelled]
        total = torch.nn.functional.kl_div(now, before.float().log_softmax(-1), reduction="sum", log_target=True)
        if step_tokens is None:
            return total / labelled.sum().clamp(min=1)
        # As the loss beside it: transformers takes the mean over processes of what is divided by all their tokens.
        return total * self.accelerator.num_processes / step_tokens

    def _step_tokens(self, logs: dict[str, float]) -> tuple[float, float]:
        return self._labelled, self._held


def _tokens(batch: Any) -> int:
    """Tokens of one batch on this process, without padding."""
    attended = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if attended is None else attended.sum())


class _Marked:
    """A collator's batches with what the rows say of being benign."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """The batch of some rows."""
        batch = self._collate([{key: value for key, value in row.items() if key != BENIGN} for row in examples])
        batch[BENIGN] = torch.tensor([bool(row[BENIGN]) for row in examples])
        return batch
