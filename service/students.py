"""Training a student, of a run or on its own.

Reads a release and a checkpoint; writes the model's folder. The command is `saferthoughts train`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from pipelines.config import load_config
from pipelines.errors import UserError
from pipelines.options import key_and_value
from pipelines.runs import RunFolder, file_hash
from service.door import say
from service.releases import release_folder

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.supervision import SupervisionProof


def settled(recipe: str, dataset: str | None, student: str | None, sets: Iterable[str]) -> "Recipe":
    """The recipe by its name or file, with what the command line says laid over it, as far as this can be told at once.

    Raises:
        UserError: the recipe, a key or the student's folder is not right, or no dataset is named.
    """
    from training.recipe import load_recipe
    from training.student import check_named

    found = load_recipe(recipe, dict(key_and_value(text) for text in sets))
    found = found.model_copy(update={"student": student or found.student, "dataset": dataset or found.dataset})
    check_named(found.student)
    if found.dataset is None:
        raise UserError(
            f"What is {recipe} trained on? Give --dataset, a release folder (runs/demo/release) or ORG/NAME@VERSION "
            "on the Hub, or write `dataset:` into a recipe of yours."
        )
    return found


def train_student(recipe: "Recipe", output: Path) -> Group:
    """Train by a settled recipe; what to tell of it."""
    from training.sft import train

    done = train(recipe, release_folder(str(recipe.dataset)), output, tell=say)
    proof = done.proof
    said = (
        f"{output}: {proof.rows} rows, {len(done.losses)} steps in {done.seconds:.0f} s, {done.tokens_per_s:.0f} "
        f"trained tokens/s, {done.utilisation:.0%} of the machine's products, loss {done.losses[0]:.2f} to "
        f"{done.losses[-1]:.2f}, peak {done.peak_memory_gb:.1f} GB\n"
    )
    return Group(Text(said), _proven(proof))


def check_training(recipe: "Recipe") -> Group:
    """Prove and plan a training, begin nothing; what to tell of it."""
    from training.sft import check

    found = check(recipe, release_folder(str(recipe.dataset)))
    return Group(Text(f"{found.plan.lines()}\n"), _proven(found.proof))


def _proven(proof: "SupervisionProof") -> Text:
    """The proof in words, and a row of which the trained part is green."""
    example = Text(
        f"supervision proof: every reasoning and answer token is trained on, no prompt token is; "
        f"{proof.labelled_share:.0%} of {proof.tokens} tokens are labelled. One row, trained in green:\n"
    )
    for piece in proof.example:
        example.append(piece.text, style="green" if piece.trained else "dim")
    return example


def train_run(run: RunFolder, student: Path | None) -> RenderableType:
    """Train the run's student on its release, by the recipe that its configuration names."""
    release = run.path / "release"
    if not release.exists():
        raise UserError(f"{run.path} has no release yet. Run first: saferthoughts release build {run.name}")
    model = run.path / "model"
    chosen = None if student is None else str(student)
    said = train_student(settled(load_config(run).training.recipe, str(release), chosen, ()), model)
    run.record("train", dataset=file_hash(release / "checksums.sha256"), record=file_hash(model / "training.json"))
    return said
