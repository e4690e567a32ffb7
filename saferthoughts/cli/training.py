"""Training a student, of a run or on its own.

Reads a release and a checkpoint; writes the model's folder. The command is `saferthoughts train`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.errors import UserError
from pipelines.interrupts import unhurried
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config
from pipelines.settings.overrides import settings_of
from saferthoughts.cli.options import Settings, notes, out, say
from saferthoughts.cli.release_words import release_folder

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.sft import TrainingResult
    from training.supervision import SupervisionProof


def settled(recipe: str | None, dataset: str | None, student: str | None, sets: Iterable[str]) -> "Recipe":
    """The recipe by its name or file, with what the command line says laid over it, as far as this can be told at once.

    Raises:
        UserError: the recipe, a key or the student's folder is not right, or no dataset is named.
    """
    from training.recipe import load_recipe, recipe_names
    from training.student import check_named

    if recipe is None:
        raise UserError(f"Which recipe? Give a file, or one of: {', '.join(recipe_names())}.")
    found = load_recipe(recipe, settings_of(sets, "epochs=2"))
    found = found.model_copy(update={"student": student or found.student, "dataset": dataset or found.dataset})
    check_named(found.student)
    if found.dataset is None:
        raise UserError(
            f"What is {recipe} trained on? Give --dataset, a release folder (runs/demo/release) or ORG/NAME@VERSION "
            "on the Hub, or write `dataset:` into a recipe of yours."
        )
    return found


def train_student(recipe: "Recipe", output: Path, push: str | None = None, private: bool = False) -> None:
    """Train by a settled recipe and tell of it; then push the model, if it is to go somewhere.

    A model that is there and came of the same recipe, rows and student is not trained again. Of several processes that
    train together, one tells and pushes.
    """
    if push is not None:
        from cards.push_model import check_pushable

        # Before hours of training, not after them.
        check_pushable(push)
    from training.checkpoints import is_main
    from training.sft import is_trained, train

    dataset = release_folder(str(recipe.dataset))
    if is_trained(recipe, dataset, output):
        if is_main():
            say(f"{output} is trained already, by this recipe on these rows. Remove it, or choose another --output.")
    else:
        done = train(recipe, dataset, output, tell=say)
        if is_main():
            out.print(_told(done))
    if push is not None and is_main():
        say(_pushed(output, push, private))


def _told(done: "TrainingResult") -> Group:
    said = (
        f"{done.model}: {done.proof.rows} rows, {len(done.losses)} steps in {done.seconds:.0f} s, "
        f"{done.tokens_per_s:.0f} trained tokens/s, {done.utilisation:.0%} of the machine's products, loss "
        f"{done.losses[0]:.2f} to {done.losses[-1]:.2f}, peak {done.peak_memory_gb:.1f} GB"
    )
    return Group(Text(said), _proven(done.proof))


def _pushed(output: Path, repo: str, private: bool) -> str:
    from cards.push_model import push_model

    done = push_model(output, repo, private)
    news = "pushed" if done.fresh else "was there already"
    return (
        f"{repo} {news}, commit {done.commit[:8]}; read back, every hash matches\n"
        f'Load it: AutoModelForCausalLM.from_pretrained("{repo}", revision="{done.commit[:8]}")'
    )


def check_training(recipe: "Recipe") -> None:
    """Prove and plan a training, begin nothing, and tell of it."""
    from training.checkpoints import is_main
    from training.sft import check

    found = check(recipe, release_folder(str(recipe.dataset)))
    if is_main():
        out.print(Group(Text(found.plan.lines()), Text(found.decoding), _proven(found.proof)))


def talk(model: str, base_url: str | None, api_key_env: str | None, max_tokens: int, temperature: float) -> None:
    """Chat with a run's student, a checkpoint, or a model behind an endpoint."""
    from pipelines.settings.options import teacher_at
    from training.chat import Talker, converse
    from training.chat_models import Checkpoint, Endpoint

    talker: Talker
    if base_url is not None:
        talker = Endpoint(teacher_at(base_url, model, api_key_env), max_tokens, temperature)
    else:
        trained = Settings.runs / model / "model"
        talker = Checkpoint(str(trained if trained.is_dir() else model), max_tokens, temperature)
    with unhurried():
        converse(talker, out, notes)


def _proven(proof: "SupervisionProof") -> Group:
    """The proof in words, and a row of which the trained part is green, and called trained where there is no colour."""
    words = (
        f"supervision proof: every reasoning and answer token is trained on, no prompt token is; "
        f"{proof.labelled_share:.0%} of {proof.tokens} tokens are labelled. One row:"
    )
    example = Table.grid(padding=(0, 2))
    for piece in proof.example:
        style, name = ("green", "trained") if piece.trained else ("dim", "not trained")
        example.add_row(Text(name, style=style), Text(piece.text.replace("\n", "\u21b5\n").rstrip("\n"), style=style))
    return Group(Text(words), example)


def train_run(run: RunFolder, student: Path | None) -> None:
    """Train the run's student on its release, by the recipe that its configuration names, and tell of it."""
    release = run.path / "release"
    if not release.exists():
        raise UserError(f"{run.path} has no release yet. Run first: saferthoughts release build {run.name}")
    model = run.path / "model"
    chosen = None if student is None else str(student)
    train_student(settled(load_config(run).training.recipe, str(release), chosen, ()), model)
    run.record("train", dataset=file_hash(release / "checksums.sha256"), record=file_hash(model / "training.json"))
