"""Trainings on a release of a run or of others: what a request may name, its command line, and what it writes.

Recipes and students go by name: those of the project, those of the folders that the service was started with
(`--recipes`, `--students`), and students that were trained here, as RUN/NAME.
"""

from pathlib import Path
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.runs import RUN_NAME, RunFolder
from pipelines.settings.overrides import settings_of
from saferthoughts.release import Release
from saferthoughts.settings import assignments
from service.app_state import AppState
from service.http.problems import Problem
from service.http.tokens import Caller
from service.jobs.queue import Job
from service.models import students
from service.models.model_shapes import (
    RecipeState,
    TrainingChoices,
    TrainingSettings,
    TrainingState,
    TrainingStep,
    TrainingWanted,
)
from service.releases import releases
from service.run.starting import release_of
from training.mixtures.mixture_rows import MIXTURES, Blend
from training.recipes.objective_settings import objective_names
from training.recipes.recipe import load_recipe, recipe_names
from training.trainer.step_metrics import METRICS, read_metrics, working_folder

ACTION = "train"
_MOST_STEPS = 400


def recipes(state: AppState) -> dict[str, str]:
    """Recipes by name, with what the command line takes for each."""
    own = state.settings.recipes
    files = {} if own is None else {path.stem: str(path.absolute()) for path in sorted(own.glob("*.yaml"))}
    return {name: name for name in recipe_names()} | files


def checkpoints(state: AppState) -> dict[str, str]:
    """Students that a training may begin with, by name: those of --students, and those that were trained here."""
    own = state.settings.students
    found = {} if own is None else {path.name: str(path.absolute()) for path in sorted(own.iterdir()) if path.is_dir()}
    trained = {f"{run}/{name}": str(place.absolute()) for run, name, place in students.folders(state)}
    return {name: place for name, place in found.items() if not name.startswith(".")} | trained


def choices(state: AppState) -> TrainingChoices:
    """What a training may name. A recipe of one's own that cannot be read is left out: the command line says why."""
    found = []
    for name in recipes(state):
        try:
            found.append(recipe_state(state, name))
        except UserError:
            continue
    mixtures = sorted(path.stem for path in MIXTURES.glob("*.yaml"))
    return TrainingChoices(
        recipes=found, objectives=objective_names(), mixtures=mixtures, students=list(checkpoints(state))
    )


def recipe_state(state: AppState, name: str) -> RecipeState:
    """A recipe's values.

    Raises:
        UserError: there is none of that name, or its file is not right.
    """
    recipe = load_recipe(_named("recipe", name, recipes(state)))
    mixture = recipe.mixture.model_dump()["release"] if isinstance(recipe.mixture, Blend) else recipe.mixture
    return RecipeState(
        name=name,
        objective=recipe.objective,
        student=recipe.student if recipe.student and not Path(recipe.student).exists() else "the bundled student",
        mixture=mixture,
        settings=TrainingSettings(**{key: getattr(recipe, key) for key in TrainingSettings.model_fields}),
    )


def arguments(state: AppState, run: RunFolder, wanted: TrainingWanted, output: bool = True) -> tuple[str, ...]:
    """The words of `train` for a request.

    Raises:
        Problem: 409, the run has no release, or the pulled one does not match itself; 404, there is none of that key.
        UserError: an unknown name, or values that do not go together.
    """
    recipe = _named("recipe", wanted.recipe, recipes(state))
    sets: dict[str, Any] = wanted.settings.model_dump(exclude_none=True)
    if wanted.objective is not None:
        sets["objective"] = _named("objective", wanted.objective, {name: name for name in objective_names()})
    if isinstance(wanted.mixture, str):
        sets["mixture"] = _named("mixture", wanted.mixture, {path.stem: path.stem for path in MIXTURES.glob("*.yaml")})
    elif wanted.mixture is not None:
        sets["mixture"] = wanted.mixture
    given = assignments(sets)
    # What does not go together is refused here, and not by a job.
    load_recipe(recipe, settings_of(given))
    release = release_of(run) if wanted.release is None else releases.usable(state, wanted.release)
    words = ["train", recipe, "--dataset", str(release.absolute())]
    if wanted.student is not None:
        words += ["--student", _named("student", wanted.student, checkpoints(state))]
    words += [word for text in given for word in ("--set", text)]
    return (*words, *(("--output", str(students.place_of(run.path, wanted.name).absolute())) if output else ()))


def start(state: AppState, run: RunFolder, wanted: TrainingWanted, caller: Caller) -> Job:
    """Queue a training.

    Raises:
        Problem: 409, the run has no release, a student of that name, or a job that is not over.
        UserError: as `arguments` does.
    """
    words = arguments(state, run, wanted)
    place = students.place_of(run.path, wanted.name)
    if place.exists() and not wanted.replace:
        raise Problem(
            409, f"{run.name} has a student '{wanted.name}' already. Give another name, or say that it may be replaced."
        )
    place.parent.mkdir(exist_ok=True)
    return state.put(run, ACTION, words, caller.name)


def again(state: AppState, run: RunFolder, caller: Caller) -> Job:
    """Queue the run's last training once more: it goes on from its last checkpoint.

    Raises:
        Problem: 404, there was none; 409, a job is not over.
    """
    job = last_job(state, run.name, ACTION)
    if job is None:
        raise Problem(404, f"{run.name} has no training that could go on.")
    return state.put(run, ACTION, job.arguments, caller.name)


def last_job(state: AppState, name: str, action: str) -> Job | None:
    """The last job of an action of a run; None where the name can be nobody's."""
    if RUN_NAME.fullmatch(name) is None:
        return None
    return next((job for job in state.queue.latest_of_each(name) if job.action == action), None)


def output_of(job: Job) -> Path | None:
    """Where a job's result goes, by its own words."""
    words = job.arguments
    return Path(words[words.index("--output") + 1]) if "--output" in words[:-1] else None


def state_of(state: AppState, run: RunFolder, student: str) -> TrainingState:
    """How a student's training is; its steps are those of the training under way, else of the finished one."""
    place = students.place_of(run.path, student)
    job = last_job(state, run.name, ACTION)
    if job is not None and (output := output_of(job)) is not None and output.name != student:
        job = None
    lines = read_metrics(working_folder(place) / METRICS) or read_metrics(place / METRICS)
    if not lines:
        # Of a student of before there is the loss of each step, and nothing else.
        losses = students.record_of(place).get("loss")
        known = losses if isinstance(losses, list) else []
        lines = [
            {"step": number, "of": len(known), "at": 0.0, "loss": loss}
            for number, loss in enumerate(known, 1)
            if isinstance(loss, int | float)
        ]
    every = max(1, -(-len(lines) // _MOST_STEPS))
    kept = [line for number, line in enumerate(lines, 1) if number % every == 0 or number == len(lines)]
    return TrainingState(
        run=run.name,
        student=student,
        finished=(place / "training.json").is_file(),
        job=None if job is None else state.reader.job_state(job),
        steps=[TrainingStep(**line) for line in kept],
    )


def configurations(state: AppState, run: RunFolder, release: str) -> dict[str, int]:
    """Rows of a release (by its key; the run's own if "") by configuration; empty where no lineage counts them."""
    try:
        folder = Path(releases.folder_or_address(state.runs, release)) if release else release_of(run)
        return Release(folder).rows
    except (UserError, Problem, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _named(what: str, name: str, known: dict[str, str]) -> str:
    if name not in known:
        raise unknown(what, name[:200], known)
    return known[name]
