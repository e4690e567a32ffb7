"""Packed rows are learned as if each were alone: the same loss, token for token, and none without their positions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.mixtures.mixture import draw
from training.objectives.sft import build_trainer
from training.recipes.recipe import Recipe
from training.students.quiet import quiet


@pytest.fixture
def batch_of(release: Path, tiny_student: Path, tmp_path: Path) -> Callable[[bool], tuple[Any, Any]]:
    """The model, and all rows as the trainer's collator gives them, packed or padded."""

    def made(packing: bool) -> tuple[Any, Any]:
        settings = {"max_length": 512, "packing": packing, "bf16": False, "gradient_checkpointing": False}
        recipe = Recipe.model_validate({"mixture": {"improved": 10}, "chat_template": "smollm2", **settings})
        with quiet():
            rows = draw(release, {"improved": 10}, 1, tmp_path / "cache").rows
            trainer = build_trainer(recipe, rows, tiny_student, tmp_path / "trainer")
            held: Any = trainer.train_dataset
            columns = [name for name in ("input_ids", "labels", "seq_lengths") if name in held.column_names]
            held = held.select_columns(columns)
            return trainer.model.eval(), trainer.data_collator([held[n] for n in range(len(held))])

    return made


def losses(model: Any, batch: Any) -> torch.Tensor:
    """The loss of every labelled token, sorted, since packing changes their order."""
    inputs = {key: value for key, value in batch.items() if key in ("input_ids", "attention_mask", "position_ids")}
    with torch.no_grad():
        logits = model(**inputs).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each[labels.flatten() != -100].sort().values


def test_packed_and_padded_rows_have_the_same_loss(batch_of: Callable[[bool], tuple[Any, Any]]) -> None:
    model, padded = batch_of(False)
    _, packed = batch_of(True)
    assert packed["input_ids"].shape[0] < padded["input_ids"].shape[0]
    alone, together = losses(model, padded), losses(model, packed)
    assert len(alone) == len(together)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    # Rows that saw each other would not agree, so the positions are what keeps them apart.
    packed["position_ids"] = torch.arange(packed["input_ids"].shape[1])[None]
    assert not torch.allclose(losses(model, packed), alone, rtol=1e-4, atol=1e-4)
