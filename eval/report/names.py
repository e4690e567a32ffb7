"""Names in place of local paths: a report is read elsewhere, and paths may identify the person who made it.

Reads and writes nothing; `eval/report/sections.py` names the models and settings of `Results` by it.
"""

import re
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from eval.run.results import Measured, Results

LOCAL = "local"
# A snapshot in the cache of the Hub's client: models--ORG--NAME/snapshots/COMMIT.
_SNAPSHOT = re.compile(r"models--(.+?)--(.+)")


def without_paths(results: Results) -> Results:
    """The same results, checkpoints by name and settings that are paths by the file's."""
    return replace(
        results,
        models=tuple(_named(model) for model in results.models),
        tasks=tuple(
            replace(run, settings={key: _file(value) for key, value in run.settings.items()}) for run in results.tasks
        ),
    )


def _named(model: Measured) -> Measured:
    if model.kind == "endpoint":
        return model
    return replace(model, name=checkpoint_name(model.name), place=LOCAL)


def checkpoint_name(path: str) -> str:
    """`demo/model` for /data/runs/demo/model, the model's own name for one in the Hub's cache."""
    parts = PurePath(path).parts
    for part in parts:
        if found := _SNAPSHOT.fullmatch(part):
            return f"{found[1]}/{found[2]}"
    return "/".join(part for part in parts[-2:] if part != "/") or path


def _file(value: Any) -> Any:
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
