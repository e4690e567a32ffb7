"""Resumable training: its working folder beside the model's, and the checkpoints that it can resume from.

    .<model>.training/
      fingerprint.json       what is trained on what: another recipe, dataset or student begins anew
      checkpoint-<step>/     weights, optimizer, data order and losses, as transformers saves them
      checkpoint-<step>.torn   the newest one that cannot be gone on from: cut off, or damaged since
      metrics.jsonl          a line for each step, see training/trainer/step_metrics.py
      runs/                  logs for TensorBoard

The folder goes when the model is finished. `training.stage` uses it.
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
from pipelines.settings.old_names import first_name
from training.recipes.recipe import Recipe
from training.trainer.step_metrics import METRICS, working_folder
from training.trainer.torn import fault_of

# What changes how a training runs, and not what comes out of it.
_APART = ("checkpoint_minutes", "stop_when_diverging", "report_to", "student", "dataset")


_FINGERPRINT = "fingerprint.json"
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Workplace:
    """The working folder, the checkpoint to go on from (None: from the beginning), and a line on each torn one."""

    folder: Path
    checkpoint: Path | None
    torn: tuple[str, ...] = ()

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
    values = {key: value for key, value in recipe.values().items() if key not in _APART}
    # As it was before there was a choice.
    for key, only in (("loss_on", "completion"), ("objective", "sft"), ("benign_kl", 0.0)):
        if values[key] == only:
            del values[key]
    if recipe.objective == "grpo":  # a higher cap goes on; without judges it is as before there were any
        apart = {"max_cost", "max_tokens", *(() if recipe.grpo.judged else ("judges", "judge_config"))}
        values["grpo"] = {key: value for key, value in values["grpo"].items() if key not in apart}
    return content_id({**values, "mixture": _first_names(values["mixture"])}, content, weights)


def _first_names(mixture: Any) -> Any:
    """A mixture by the names that variants had first, so that a student of before is still the one that it was."""
    if not isinstance(mixture, dict):
        return mixture
    return {first_name(name): _first_names(part) for name, part in mixture.items()}


@contextmanager
def workplace_of(output: Path, fingerprint: str) -> Iterator[Workplace]:
    """The working folder of a training, locked for this process; emptied where it belonged to another training.

    One in which nothing was saved goes at the end.

    Raises:
        UserError: another process trains the same model.
    """
    folder = working_folder(output)
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
            left = {path.name for path in folder.glob("*")}
            if left and left <= {_FINGERPRINT, METRICS}:
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
    whole, torn = [], []
    for checkpoint in checkpoints_in(folder):
        fault = fault_of(checkpoint)
        if fault:
            torn.append((checkpoint, fault))
        else:
            whole.append(checkpoint)
    last = whole[-1] if whole else None
    instead = f"going on from {last.name}" if last else "beginning anew"
    lines = [
        f"{path} cannot be gone on from ({fault}): set aside as {path.name}.torn; {instead}" for path, fault in torn
    ]
    if torn and is_main():
        for earlier in folder.glob("*.torn"):
            shutil.rmtree(earlier)
        for checkpoint, _ in torn[:-1]:
            shutil.rmtree(checkpoint)
        newest = torn[-1][0]
        newest.rename(newest.with_name(f"{newest.name}.torn"))
    return Workplace(folder, last, tuple(lines))


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a working folder, whole or not, by their steps."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _step(path) is not None]
    return sorted(found, key=lambda path: _step(path) or 0)


def _step(path: Path) -> int | None:
    number = path.name.partition("-")[2]
    return int(number) if number.isdecimal() else None


def check_disk(folder: Path, trained: int, total: int, recipe: Recipe) -> None:
    """Whether two checkpoints, where there are any, and the model fit beside each other.

    A checkpoint that is there already is one of the two: it goes once the next one is written.

    Args:
        folder: Where they go.
        trained: Parameters that are trained: a checkpoint has each, with two moments, in four bytes.
        total: All parameters, saved in two bytes, or four.
        recipe: What is saved, and how.

    Raises:
        UserError: they do not, with what is there and what each takes.
    """
    model = (2 if recipe.bf16 else 4) * total
    checkpoint = 12 * trained if recipe.checkpoint_minutes else 0
    held = sum(file.stat().st_size for path in checkpoints_in(folder) for file in path.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if model + 2 * checkpoint > free + held:
        there = f" beside a checkpoint of {size_of(held)}" if held else ""
        whole = (
            f"{size_of(model + 2 * checkpoint)} under {folder.parent}, and {size_of(free)} are free{there}. Free some"
        )
        if not checkpoint:
            raise UserError(f"The model takes {whole}, or choose another --output.")
        raise UserError(
            f"Two checkpoints of {size_of(checkpoint)} (weights {size_of(checkpoint / 3)}, optimizer the rest) and a "
            f"model of {size_of(model)} take {whole}, choose another --output, or set checkpoint_minutes=0."
        )


def size_of(count: float) -> str:
    """Bytes in the unit that fits."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"


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
        """Restart the clock."""
        self._last = time.monotonic()


def processes() -> int:
    """How many processes train together, as accelerate's launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process prints and writes the results."""
    return os.environ.get("RANK", "0") == "0"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
