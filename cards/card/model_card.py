"""The card of a student: `model_card.md.jinja` filled from its training record and, once it is measured, its scores.

Writes README.md into a model's folder. `training.trainer.model_folder` calls it when a training ends, `saferthoughts
eval` again with the table of scores.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from cards.card.markdown import template
from pipelines.documents import read_json
from pipelines.errors import UserError
from pipelines.public_names import LOCAL
from pipelines.runs import file_hash, write_text

RECORD = "training.json"
"""The file that marks a folder as a model of this project."""


def local_place(folder: Path, part: Literal["student", "dataset"]) -> Path | None:
    """Where the checkpoint or the release of a student is on this machine; None where that is not recorded.

    It is in local.json. A student of version 0.1.0 has it in its training record.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        if (folder / LOCAL).is_file():
            return Path(read_json(folder / LOCAL)[part])
        return Path(read_json(folder / RECORD)[part]["source" if part == "student" else "path"])
    return None


def release_of(dataset: Path) -> dict[str, Any] | None:
    """Title, version, run, content, address and digest (the sha256 of checksums.sha256) of a release, and whether the
    rehearsal teacher made it; None without lineage."""
    try:
        lineage = read_json(dataset / "lineage.json")
        keys = ("title", "version", "run_id", "rehearsal", "content")
        sums = dataset / "checksums.sha256"
        digest = file_hash(sums) if sums.is_file() else None
        return {**{key: lineage[key] for key in keys}, "repo": lineage.get("repo"), "digest": digest}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def model_card(
    facts: dict[str, Any],
    name: str,
    recipe: str,
    scores: str | None = None,
    results: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The card of a model.

    Args:
        facts: What training.json holds.
        name: The model folder's name.
        recipe: The resolved recipe, as YAML.
        scores: The evaluation's table as markdown; None before it is measured.
        results: Arguments of `EvalResult`, for the Hub's `model-index`.
    """
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    release = facts["dataset"]["release"]
    student = facts["student"]
    scores_texts = facts.get("objective", {}).get("name") == "rm"
    tag = "text-classification" if scores_texts else "text-generation"
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": tag}
    if student["license"]:
        front |= {"base_model": student["model"], "license": student["license"]}
    tags = ["saferthoughts", "safe-reasoning", *(["rehearsal"] if release and release["rehearsal"] else [])]
    if release and release.get("repo"):
        front["datasets"] = [release["repo"]]
    if results:
        front["model-index"] = eval_results_to_model_index(name, [EvalResult(**one) for one in results])
    words = template("card/model_card.md.jinja").render(
        facts, name=name, recipe=recipe.strip(), scores=scores, release=release
    )
    return f"---\n{yaml.safe_dump({**front, 'tags': tags}, sort_keys=False, allow_unicode=True)}---\n{words}"


def write_model_card(
    folder: Path, scores: str | None = None, results: Sequence[Mapping[str, Any]] = (), name: str | None = None
) -> None:
    """Write README.md of a model that this project trained; arguments as of `model_card`, by default its folder's name.

    Raises:
        UserError: the folder has no training record.
    """
    try:
        facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} was not trained here: {RECORD} or recipe.yaml cannot be read ({error}).") from error
    write_text(folder / "README.md", model_card(facts, name or folder.name, recipe, scores, results))
