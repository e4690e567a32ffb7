"""Training a student, of a run or on its own.

Reads a release and a checkpoint; writes the model's folder. The command is `saferthoughts train`.
"""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.errors import UserError
from pipelines.interrupts import unhurried
from pipelines.runs import file_hash
from saferthoughts.cli.options import Settings, note, notes, out, say, say_json
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run
from saferthoughts.training import check_training, settled_recipe, train, whole_reply

if TYPE_CHECKING:
    from training.proof.supervision import Piece, SupervisionProof
    from training.recipes.recipe import Recipe
    from training.stage import TrainingResult


def train_student(
    dataset: str | None,
    recipe: str | None,
    student: str | None = None,
    settings: Iterable[str] | None = None,
    *,
    output: Path | None,
    push: str | None = None,
    private: bool = False,
) -> None:
    """Train a student and print what came of it; then push the model, if it is to go somewhere.

    Of several processes that train together, one prints and pushes.
    """
    chosen = settled_recipe(dataset, recipe, student, settings)
    if output is None:
        raise UserError("Where does the student go? Give --output FOLDER, or --check to prove and plan only.")
    if push is not None:
        from cards.hub.push_model import check_pushable

        # Before hours of training, not after them.
        check_pushable(push)
    from training.trainer.checkpoints import is_main

    trained = train(recipe=chosen, output=output, progress=say)
    if not is_main():
        return
    if trained.result is None:
        say(f"{output} is trained already, by this recipe on these rows. Remove it, or choose another --output.")
    else:
        out.print(_result(trained.result))
    note(f"Next: saferthoughts chat {shlex.quote(str(output))}, or saferthoughts eval {shlex.quote(str(output))}")
    if push is not None:
        say(words_of(trained.push(push, private=private)))


def _result(done: "TrainingResult") -> Group:
    products = "" if done.utilisation is None else f"{done.utilisation:.0%} of the machine's products, "
    words = (
        f"{done.model}: {done.proof.rows} rows, {len(done.losses)} steps in {done.seconds:.0f} s, "
        f"{done.tokens_per_s:.0f} trained tokens/s, {products}loss "
        f"{done.losses[0]:.2f} to {done.losses[-1]:.2f}, peak {done.peak_memory_gb:.1f} GB"
    )
    return Group(Text(words), _proven(done.proof))


def show_plan(
    dataset: str | None,
    recipe: "Recipe | str | None",
    student: str | None = None,
    settings: Iterable[str] | None = None,
    as_json: bool = False,
) -> None:
    """Prove and plan a training, begin nothing, and print both."""
    from training.trainer.checkpoints import is_main

    progress = note if as_json else say
    found = check_training(dataset, recipe, student=student, settings=settings, progress=progress)
    if not is_main():
        return
    if as_json:
        say_json(found)
    else:
        out.print(Group(Text(found.plan.lines()), Text(found.decoding), _proven(found.proof)))


def talk(
    model: str,
    base_url: str | None,
    api_key_env: str | None,
    max_tokens: int,
    temperature: float,
    as_json: bool = False,
    beside: str | None = None,
) -> None:
    """Chat with a run's student, a checkpoint, or a model behind an endpoint.

    With `as_json` the whole of standard input is one question, and a list of replies is printed: that of the model
    `beside` it, if there is one, and its own.
    """
    from pipelines.settings.options import teacher_at
    from training.students.chat import Talker, converse
    from training.students.chat_models import Checkpoint, Endpoint

    if as_json:
        question = sys.stdin.read().strip()
        if not question:
            raise UserError("--json takes the question from standard input, and there is none.")
        replies = [whole_reply(Checkpoint(beside, max_tokens, temperature), question)] if beside else []
    talker: Talker
    if base_url is not None:
        talker = Endpoint(teacher_at(base_url, model, api_key_env), max_tokens, temperature)
    else:
        trained = Settings.runs / model / "model"
        talker = Checkpoint(str(trained if trained.is_dir() else model), max_tokens, temperature)
    if as_json:
        say_json([*replies, whole_reply(talker, question)])
        return
    with unhurried():
        converse(talker, out, notes)


def _proven(proof: "SupervisionProof") -> Group:
    """The proof in words, and a row."""
    one = "One of them" if proof.loss_on == "compared" else "One row"
    return Group(Text(f"supervision proof: {proof.described()}. {one}:"), example_of(proof.example))


def example_of(pieces: "Iterable[Piece]") -> Table:
    """One row of a dataset: what is trained on green, and called trained where there is no colour."""
    example = Table.grid(padding=(0, 2))
    for piece in pieces:
        style, name = ("green", "trained") if piece.trained else ("dim", "not trained")
        example.add_row(Text(name, style=style), Text(piece.text.replace("\n", "\u21b5\n").rstrip("\n"), style=style))
    return example


def train_run(run: Run, student: Path | None) -> None:
    """Train the run's student on its release, by the recipe that its configuration names, and print what came of it."""
    release = run.path / "release"
    if not release.exists():
        raise UserError(f"{run.path} has no release yet. Run first: saferthoughts release build {run.name}")
    model = run.path / "model"
    train_student(str(release), run.config.training.recipe, None if student is None else str(student), output=model)
    checksums, record = file_hash(release / "checksums.sha256"), file_hash(model / "training.json")
    run.folder.record("train", dataset=checksums, record=record)
