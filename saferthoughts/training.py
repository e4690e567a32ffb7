"""Training a student on a release.

Reads a release and a checkpoint; writes the model's folder.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import UserError
from pipelines.file_marks import KeptWhileUnchanged, folder_mark
from saferthoughts.release import Release, release_path
from saferthoughts.settings import Assignments, StoredPath, assignments

if TYPE_CHECKING:
    from cards.hub.push_model import PushedModel
    from training.recipes.recipe import Recipe
    from training.stage import TrainingCheck, TrainingResult
    from training.students.chat import Talker
    from training.sweeps.sweep_run import MemberOutcome

# The student that answered last: loading it takes longer than a reply.
_loaded: "KeptWhileUnchanged[Talker]" = KeptWhileUnchanged(1)


@dataclass(frozen=True, slots=True)
class Student:
    """A trained model.

    Attributes:
        path: The model's folder.
        result: What training did; None where the folder held this student already.
    """

    path: Path
    result: "TrainingResult | None" = None

    def push(self, repo: str, *, private: bool = False) -> "PushedModel":
        """Put the model on the Hub, and read everything back. The token is HF_TOKEN.

        Args:
            repo: ORG/NAME; made where there is none.
            private: Make the repository private.

        Raises:
            UserError: the Hub refuses, or holds something else there.
        """
        from cards.hub.push_model import push_model

        return push_model(self.path, repo, private)

    def reply(self, text: str, *, max_tokens: int = 1024, temperature: float = 0.0) -> "StudentReply":
        """What the model writes to one question, its reasoning apart. It is loaded once and kept.

        Args:
            text: The question.
            max_tokens: The most tokens of the reply.
            temperature: 0 takes the likeliest token each time.

        Raises:
            UserError: it cannot be loaded, or has no chat template.
        """
        return whole_reply(_talker(self.path, max_tokens, temperature), text)


@dataclass(frozen=True, slots=True)
class StudentReply:
    """A reply of a student.

    Attributes:
        reasoning: What it thought; "" where it did not.
        answer: What it answered.
        cut: Why the reply ends before its end; None where it does not.
    """

    reasoning: str
    answer: str
    cut: str | None


def whole_reply(talker: "Talker", text: str) -> StudentReply:
    """A model's reply to one question, once it is complete."""
    pieces = list(talker.reply([{"role": "user", "content": text}]))
    reasoning, answer, remarks = (
        "".join(piece.text for piece in pieces if piece.section == section)
        for section in ("reasoning", "answer", "remark")
    )
    return StudentReply(reasoning, answer, remarks or None)


def _talker(path: Path, max_tokens: int, temperature: float) -> "Talker":
    from training.students.chat_models import Checkpoint

    key = path, max_tokens, temperature
    return _loaded.get(key, lambda: folder_mark(path), lambda: Checkpoint(str(path), max_tokens, temperature))


def train(
    release: Release | StoredPath | None = None,
    recipe: "Recipe | StoredPath | None" = None,
    *,
    output: StoredPath | None = None,
    student: StoredPath | None = None,
    settings: Assignments | None = None,
    progress: Callable[[str], None] | None = None,
) -> Student:
    """Train a student, having proved first that its reasoning is trained on; a training that was stopped goes on.

    >>> import saferthoughts as st
    >>> settings = {"mixture": {"improved": 2, "benign": 2}, "epochs": 1, "overlong_share": 0.5}
    >>> trained = st.train("runs/demo/release", "smollm2-135m-cpu", student=checkpoint, settings=settings)
    >>> trained.path.as_posix(), len(trained.result.losses) > 0
    ('runs/demo/model', True)

    Args:
        release: A release, its folder, or ORG/NAME@VERSION on the Hub; the recipe's own if not given.
        recipe: A recipe's name, its file, or a recipe.
        output: The model's folder: model/ of the release's run if not given, or models/NAME-RECIPE here.
        student: A checkpoint, or ORG/NAME on the Hub, in place of the recipe's.
        settings: Any keys of the recipe, as in `{"epochs": 2}`.
        progress: Is called with the plan, before the first step.

    Returns:
        The student; one that is there already, of the same recipe, rows and checkpoint, is not trained again.

    Raises:
        UserError: the recipe, the release or the checkpoint is not right, a proof of supervision that fails, or too
            little memory or disk.
    """
    chosen = settled_recipe(release, recipe, student, settings)
    dataset = release_path(_dataset_of(chosen, release), progress)
    from training.recipes.recipe import Recipe
    from training.stage import is_trained
    from training.stage import train as train_model

    name = "student" if isinstance(recipe, Recipe) else Path(str(recipe)).stem
    model = _output_of(dataset, name) if output is None else Path(output)
    if is_trained(chosen, dataset, model):
        return Student(model)
    return Student(model, train_model(chosen, dataset, model, report=progress))


def sweep(
    name: str,
    recipe: str | None = None,
    release: StoredPath | None = None,
    *,
    output: StoredPath,
    student: StoredPath | None = None,
    settings: Assignments | None = None,
    launch: str = "",
    progress: Callable[[str], None] | None = None,
) -> "list[MemberOutcome]":
    """Train every member of a sweep that is not trained yet; one that fails leaves the others as they are.

    Args:
        name: A sweep's name or file.
        recipe: A recipe's name or file, where the sweep names none.
        release: A release's folder or ORG/NAME@VERSION, in place of the sweep's.
        output: The sweep's folder, a folder in it for each member; results.json and results.md are the table.
        student: A checkpoint, or ORG/NAME on the Hub.
        settings: Keys of every member's recipe.
        launch: What runs a member, such as "accelerate launch --num_processes 2"; Python if not given.
        progress: Is called with a line for each member that ends.

    Raises:
        UserError: the sweep, a key, or a checkpoint is not right.
    """
    from pipelines.settings.overrides import settings_of
    from training.students.student import check_named
    from training.sweeps.sweep import load_sweep, members_of
    from training.sweeps.sweep_run import run_sweep

    given = settings_of(assignments(settings), "epochs=2")
    where = None if release is None else str(release)
    members = members_of(load_sweep(name), recipe, where, None if student is None else str(student), given)
    for wanted in {member.recipe.student for member in members}:
        check_named(wanted)
    return run_sweep(members, Path(output), shlex.split(launch) or [sys.executable], progress or (lambda _: None))


def check_training(
    release: Release | StoredPath | None = None,
    recipe: "Recipe | StoredPath | None" = None,
    *,
    student: StoredPath | None = None,
    settings: Assignments | None = None,
    progress: Callable[[str], None] | None = None,
) -> "TrainingCheck":
    """Prove and plan a training, and begin nothing; the arguments are those of `train`.

    Raises:
        UserError: as `train` does before its first step.
    """
    chosen = settled_recipe(release, recipe, student, settings)
    dataset = release_path(_dataset_of(chosen, release), progress)
    from training.stage import check

    return check(chosen, dataset)


def settled_recipe(
    release: Release | StoredPath | None,
    recipe: "Recipe | StoredPath | None",
    student: StoredPath | None = None,
    settings: Assignments | None = None,
) -> "Recipe":
    """The recipe by its name or file, with other settings laid over it, as far as this can be checked at once.

    Raises:
        UserError: the recipe, a key or the student's folder is not right, or no release is named.
    """
    from pipelines.settings.overrides import settings_of
    from training.recipes.recipe import Recipe, load_recipe, recipe_names
    from training.students.student import check_named

    if recipe is None:
        raise UserError(f"Which recipe? Give a file, or one of: {', '.join(recipe_names())}.")
    given = settings_of(assignments(settings), "epochs=2")
    found = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), given)
    dataset = str(release.path if isinstance(release, Release) else release) if release else found.dataset
    found = found.model_copy(update={"student": str(student) if student else found.student, "dataset": dataset})
    check_named(found.student)
    if found.dataset is None:
        raise UserError(
            f"What is {recipe} trained on? Give --dataset, a release folder (runs/demo/release) or ORG/NAME@VERSION "
            "on the Hub, or write `dataset:` into a recipe of yours."
        )
    return found


def _dataset_of(recipe: "Recipe", release: Release | StoredPath | None) -> Release | StoredPath:
    return release if isinstance(release, Release) else str(recipe.dataset)


def _output_of(release: Path, recipe: str) -> Path:
    """Where a student goes by default: into the run of the release, or into models/ by the names of both."""
    run = release.resolve().parent
    if (run / "manifest.json").exists():
        return release.parent / "model"
    name = run.name if release.name == "release" else release.name
    return Path("models") / f"{name}-{recipe}"
