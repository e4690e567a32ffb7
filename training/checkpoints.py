"""A training that can be stopped: its working folder beside the model's, and what it may be gone on from.

    .<model>.training/
      fingerprint.json       what is trained on what: another recipe, dataset or student begins anew
      checkpoint-<step>/     weights, optimizer, data order and losses, as transformers saves them
      runs/                  logs for TensorBoard

The folder goes when the model is finished. `training.sft` uses it.
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import write_json
from training.recipe import Recipe

# What changes how a training runs, and not what comes out of it.
_APART = ("checkpoint_minutes", "report_to", "student", "dataset")


@dataclass(frozen=True, slots=True)
class Workplace:
    """The working folder, and the checkpoint to go on from (None: from the beginning)."""

    folder: Path
    checkpoint: Path | None

    @property
    def step(self) -> int:
        """The step to go on from."""
        return int(self.checkpoint.name.partition("-")[2]) if self.checkpoint else 0


def open_workplace(output: Path, recipe: Recipe, content: str, weights: str) -> Workplace:
    """The working folder of a training, emptied where it belonged to another one.

    Args:
        output: The model's folder.
        recipe: As resolved.
        content: A hash of the rows.
        weights: A hash of the student's weights.
    """
    folder = output.with_name(f".{output.name}.training")
    fingerprint = content_id(recipe.model_dump(mode="json", exclude=set(_APART)), content, weights)
    path = folder / "fingerprint.json"
    if _read(path) != fingerprint:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, fingerprint)
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        # Written last: without it the checkpoint was cut off.
        if (checkpoint / "trainer_state.json").is_file():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return Workplace(folder, max(whole, key=lambda found: int(found.name.partition("-")[2]), default=None))


def check_disk(folder: Path, trained: int, total: int) -> None:
    """Whether two checkpoints and the model fit beside each other.

    Args:
        folder: Where they go.
        trained: Parameters that are trained, each with two moments, in four bytes.
        total: All parameters.

    Raises:
        UserError: they do not, with what is there and what it takes.
    """
    needed = (2 * 12 * trained + 2 * total) / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if needed > free:
        raise UserError(
            f"Checkpoints and model take {needed:.1f} GB under {folder.parent}, and {free:.1f} GB are free. Free some, "
            "choose another --output, or set checkpoint_minutes=0."
        )


class TimedCheckpoints(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Has a checkpoint saved when so many minutes passed since the last one."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for one after a step, but not after the last."""
        if state.global_step < state.max_steps and time.monotonic() - self._last >= self._seconds:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count anew."""
        self._last = time.monotonic()


def processes() -> int:
    """How many processes train together, as accelerate's launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that tells and writes."""
    return os.environ.get("RANK", "0") == "0"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
