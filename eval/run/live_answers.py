"""Writes logs/<label>-<hash>/live.jsonl, a line for each answer as Inspect ends it; `eval/run/live.py` reads it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalSample

from eval.run.answers import value_of
from eval.run.planning import Planned
from pipelines.files import append_line


class LiveAnswers:
    """The file of one model. What cannot be written is left out: the answers themselves are in Inspect's logs."""

    def __init__(self, path: Path, label: str, planned: Sequence[Planned]) -> None:
        self._path, self._label = path, label
        self._planned = {one.spec.name: one for one in planned}
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        for name, one in self._planned.items():
            measure = one.spec.measure
            self._write(name, title=measure.title, better=measure.better, due=len(one.expected), at=time.time())

    def add(self, task: str, sample: EvalSample) -> None:
        """One more answer."""
        one = self._planned.get(task)
        if one is None:
            return
        value, unscored = value_of((sample.scores or {}).get(one.spec.scorer))
        failed = sample.error is not None
        self._write(
            task,
            id=str(sample.id),
            epoch=sample.epoch,
            value=None if failed else value,
            unscored=bool(unscored),
            error=failed,
        )

    def _write(self, task: str, **values: Any) -> None:
        line = {"model": self._label, "task": task, "fingerprint": self._planned[task].fingerprint, **values}
        append_line(self._path, line)
