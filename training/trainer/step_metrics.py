"""The figures of each training step, one JSON object a line: what a page draws while a training runs.

Writes metrics.jsonl into the working folder of a training (`trainer.checkpoints`), from where it goes into the model's
folder. A line has step, of (steps in all), at (seconds since 1970), and as far as the trainer logs them loss,
learning_rate, trained_tokens_per_s, grad_norm, reward. A figure that is no number is null.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.files import append_line, lines_so_far

METRICS = "metrics.jsonl"
FIGURES = ("loss", "learning_rate", "trained_tokens_per_s", "grad_norm", "reward")
_MOST_BYTES = 64_000_000


def working_folder(output: Path) -> Path:
    """The working folder of the training that makes a model's folder."""
    return output.with_name(f".{output.name}.training")


class StepMetrics:
    """A training's metrics.jsonl. A file that cannot be written stops no training."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, step: int) -> None:
        """Keep the lines up to the step that the training goes on from; a checkpoint is older than the last line."""
        kept = [line for line in read_metrics(self._path) if line["step"] <= step] if step else []
        with suppress(OSError):
            self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def add(self, step: int, of: int, logs: Mapping[str, Any]) -> None:
        """One more step."""
        found = {name: _number(logs[name]) for name in FIGURES if name in logs}
        append_line(self._path, {"step": step, "of": of, "at": time.time(), **found})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl by step; lines that are cut short or of another form are left out.

    Only the known figures are taken, as numbers.
    """
    found: dict[int, dict[str, Any]] = {}
    for line in lines_so_far(path, _MOST_BYTES):
        with suppress(ValueError, TypeError, KeyError, OverflowError):
            step, of, at = int(line["step"]), int(line["of"]), float(line["at"])
            figures = {name: _number(line[name]) for name in FIGURES if name in line}
            found[step] = {"step": step, "of": of, "at": at, **figures}
    return [found[step] for step in sorted(found)]


def _number(value: Any) -> float | None:
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else None
