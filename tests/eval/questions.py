"""A task's questions as a file of JSON lines, as `--data TASK=FILE` takes them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def written(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
