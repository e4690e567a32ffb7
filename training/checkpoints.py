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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers import TrainerCallback

from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import write_json
from training.recipe import Recipe

# What changes how a training runs, and not what comes out of it.
_APART = ("checkpoint_minutes", "report_to", "student", "dataset")


_FINGERPRINT = "fingerprint.json"
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Workplace:
    """The working folder, and the checkpoint to go on from (None: from the beginning)."""

    folder: Path
    checkpoint: Path | None

    @property
    def step(self) -> int:
        """The step to go on from."""
        return int(self.checkpoint.name.partition("-")[2]) if self.checkpoint else 0


def fingerprint_of(recipe: Recipe, content: str, weights: str) -> str:
    """A hash of what decides what comes out of a training.

    Args:
        recipe: As resolved.
        content: A hash of the rows.
        weights: A hash of the student's weights.
    """
    return content_id(recipe.model_dump(mode="json", exclude=set(_APART)), content, weights)


@contextmanager
def workplace_of(output: Path, fingerprint: str) -> Iterator[Workplace]:
    """The working folder of a training, emptied where it belonged to another one, and this process's alone.

    One in which nothing was saved goes at the end.

    Raises:
        UserError: another process trains the same model.
    """
    folder = output.with_name(f".{output.name}.training")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The lock goes with the process, however that ends. Of several that train together the first one holds it.
    lock = FileLock(folder.with_name(f"{folder.name}.lock")) if is_main() else None
    try:
        if lock is not None:
            lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"Another process is training {output}. Wait for it, or choose another --output.") from error
    try:
        yield _opened(folder, fingerprint)
    finally:
        if lock is not None:
            if [path.name for path in folder.glob("*")] == [_FINGERPRINT]:
                shutil.rmtree(folder)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def _opened(folder: Path, fingerprint: str) -> Workplace:
    path = folder / _FINGERPRINT
    # Of several processes the first one empties it, and the others wait for that.
    while not is_main() and _read(path) != fingerprint:
        time.sleep(_LOOK_EVERY_S)
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
