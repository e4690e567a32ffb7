"""Scores as they are given, kept in a file, so that a rescoring that was stopped asks again only what is missing.

    scores.jsonl    its first line says who scores; then a line a score: {"key": ..., "score": ...}

A line is written whole before the next answer is scored; one that a kill or a full disk cut off is left out when the
file is read. Used by `eval/run/rescore.py`.
"""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from inspect_ai.scorer import Score
from inspect_ai.solver import TaskState
from pydantic import ValidationError

NAME = "scores.jsonl"


class KeptScores:
    """The scores of one folder by one who scores; use as a context manager.

    Args:
        scored_by: All that decides a score beside the answer.
    """

    def __init__(self, folder: Path, scored_by: str) -> None:
        self._path = folder / NAME
        self._by = scored_by
        self._scores: dict[str, Score] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> "KeptScores":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read()
        self._file = self._path.open("r+b" if whole else "wb")
        self._file.truncate(whole)
        self._file.seek(whole)
        if not whole:
            self._write({"scored_by": self._by})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, key: str) -> Score | None:
        """The score that is kept under a key."""
        return self._scores.get(key)

    def put(self, key: str, score: Score) -> None:
        """Keep a score."""
        self._write({"key": key, "score": score.model_dump()})
        self._scores[key] = score

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        # NaN is what Inspect marks an unscored answer with, and Python's JSON has it.
        self._file.write(json.dumps(line, ensure_ascii=True, default=str).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Read the file; returns how many of its bytes are whole lines."""
        whole = 0
        for number, line in enumerate(_lines(self._path)):
            try:
                found = json.loads(line)
                if number:
                    self._scores[str(found["key"])] = Score.model_validate(found["score"])
                elif found["scored_by"] != self._by:
                    break
            except (ValueError, KeyError, TypeError, ValidationError):
                break
            whole += len(line)
        return whole


def kept_by(folder: Path) -> str | None:
    """Which model wrote a folder's kept scores, None where that is not recorded."""
    for line in _lines(folder / NAME):
        try:
            return str(json.loads(line)["scored_by"])
        except (ValueError, KeyError, TypeError):
            return None
    return None


def key_of(model: str, task: str, state: TaskState) -> str:
    """One answer of a model to a task, by its content: another answer to the same question has another key."""
    output = state.output.model_dump_json(include={"choices", "completion"})
    parts = [model, task, str(state.sample_id), str(state.epoch), state.input_text, output]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
