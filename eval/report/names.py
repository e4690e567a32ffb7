"""Names in place of local paths: a report is read elsewhere, and paths may identify the person who made it.

Reads and writes nothing; `eval/report/sections.py` names the models and settings of `Results` by it.
"""

from dataclasses import replace
from pathlib import PurePath

from eval.run.results import Measured, Results
from pipelines.public_names import public_name, public_values

LOCAL = "local"


def without_paths(results: Results) -> Results:
    """The same results, checkpoints by name and settings that are paths by the file's."""
    return replace(
        results,
        models=tuple(_named(model) for model in results.models),
        tasks=tuple(replace(run, settings=public_values(run.settings)) for run in results.tasks),
    )


def _named(model: Measured) -> Measured:
    if model.kind == "endpoint":
        return model
    return replace(model, name=checkpoint_name(model.name), place=LOCAL)


def checkpoint_name(path: str) -> str:
    """`demo/model` for /data/runs/demo/model, the model's own name for one in the Hub's cache."""
    return public_name(PurePath(path), parts=2)
