"""What the MODEL of `saferthoughts eval` names, and where its results go.

Reads runs, checkpoints' folders and teachers' entries; writes nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from eval.models.inspect_models import Target
from eval.models.llama_cpp import GGUF
from pipelines.errors import UserError
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.teacher import Teacher, load_teachers
from training.students.student import HUB_MODEL, checkpoint_of, fetch_student
from training.students.student import NAME as BUNDLED

_GGUF = "gguf:"
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """What is measured, and where results go. `cards` are the folders of models whose cards get the table."""

    targets: tuple[Target, ...]
    output: Path
    cards: tuple[Path, ...] = ()
    run: RunFolder | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """What the command line says of the model: a name or an endpoint, and its row in the study's table."""

    runs: Path
    name: str | None = None
    endpoint: Teacher | None = None
    teachers: Path | None = None
    student: Path | None = None
    output: Path | None = None
    base: str = ""
    variant: str = ""


def place_of(named: Named) -> Place:
    """The models to measure: a run's two, a checkpoint, a GGUF file, a model of the Hub, a teacher, an endpoint.

    Raises:
        UserError: nothing is named, or two things; a name that is none of these; an option for a run alone.
    """
    if named.endpoint is not None:
        if named.name is not None:
            raise UserError(f"Give either MODEL ('{named.name}') or --base-url and --model, not both.")
        label = _label(named.endpoint.model)
        return _elsewhere(named, Target(label, teacher=named.endpoint, base=named.base, variant=named.variant))
    if named.name is None:
        raise UserError(
            "What is to be measured? Give a run, a checkpoint's folder, a teacher's name, or --base-url and --model."
        )
    if (named.runs / named.name / "manifest.json").exists():
        return place_of_run(RunFolder.open(named.runs, named.name), named)
    if named.student is not None:
        raise UserError(f"--student goes with a run, and there is no run '{named.name}' under {named.runs}/.")
    folder = Path(named.name)
    if named.name.startswith(_GGUF) or (folder.suffix == GGUF and folder.is_file()):
        path = Path(named.name.removeprefix(_GGUF))
        if path.suffix != GGUF:
            raise UserError(f"'{named.name}' names no {GGUF} file. Give gguf:PATH with the whole name of the file.")
        return _elsewhere(named, Target(_label(path.stem), path=path, base=named.base, variant=named.variant))
    if named.name == BUNDLED or (HUB_MODEL.fullmatch(named.name) and not folder.exists()):
        # Nothing is written into a cache: its results go where an endpoint's do.
        label = _label(named.name.partition("@")[0])
        path = checkpoint_of(None if named.name == BUNDLED else named.name)
        return _elsewhere(named, Target(label, path=path, base=named.base, variant=named.variant))
    if folder.is_dir():
        from cards.card.model_card import RECORD

        target = Target(_label(folder.resolve().name), path=folder, base=named.base, variant=named.variant)
        cards = (folder,) if (folder / RECORD).exists() else ()
        return Place((target,), named.output or folder / "eval", cards)
    teachers = load_teachers(named.teachers)
    if named.name not in teachers:
        raise UserError(
            f"'{named.name}' is no run under {named.runs}/, no checkpoint's folder, no ORG/NAME and no teacher. "
            f"Teachers: {', '.join(teachers)}."
        )
    target = Target(
        _label(named.name), teacher=teachers[named.name], name=named.name, base=named.base, variant=named.variant
    )
    return _elsewhere(named, target)


def place_of_run(run: RunFolder, named: Named) -> Place:
    """A run's student before and after it was trained.

    Raises:
        UserError: it has not been trained.
    """
    model = run.path / "model"
    if not model.exists():
        raise UserError(
            f"{run.path} has no model yet. Train one: saferthoughts train {load_config(run).training.recipe} "
            f"--dataset {run.path / 'release'} --output {model}"
        )
    before = Target(
        "before", path=named.student or fetch_student(), base=named.base, variant="raw" if named.base else ""
    )
    after = Target("after", path=model, base=named.base, variant=named.variant)
    return Place((before, after), named.output or run.path / "eval", (model,), run)


def _elsewhere(named: Named, target: Target) -> Place:
    """An endpoint's results stand where a run's would, so that one pattern of paths finds all of them."""
    if named.output is None and (named.runs / target.label / "manifest.json").exists():
        raise UserError(f"Results of '{target.label}' would go into the run of that name. Give --output FOLDER.")
    return Place((target,), named.output or named.runs / target.label / "eval")


def _label(name: str) -> str:
    """A name as a folder: the last part of a Hub id, nothing but letters, digits, dots and dashes."""
    return _PLAIN.sub("-", name.rstrip("/").rpartition("/")[2]).strip(".-_")[:64] or "model"
