"""A study's file: what is generated, trained and measured.

Reads saferthoughts/studies/NAME.yaml or any YAML file of that form; writes nothing.

    extends: table1     optional: another study, over which this file is laid; a null takes an entry away
    runs:               by name: options of `saferthoughts run`, and check, select, queries, gpus
    methods:            by name: the rows of a run or of a release; neither leaves the model as it is
    students:           by name: a recipe, and the model that it is trained from
    evaluations:        by name: options of `saferthoughts eval`, and gpus
    servers:            by entry: servers of guard, attacker and judge that the study starts, where GPUs are
    seeds: [42]         each is one training of every method and student

Every student is trained by every method and measured by every evaluation. docs/study.md shows each part.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from pipelines.errors import UserError, unknown
from pipelines.settings.overrides import Setting, override
from pipelines.settings.parts import Part, read_yaml, validated

FOLDER = Path(__file__).parent
_MOST_EXTENDED = 5

Options = dict[str, Any]
Gpus = Annotated[int, Field(ge=0, le=64)]


class Method(Part):
    """What a student is trained on; with neither run nor release it stays as it is."""

    run: str | None = None
    release: str | None = Field(default=None, description="a folder, or ORG/NAME@VERSION")
    mixture: Options | str | None = Field(default=None, description="the recipe's if not given")
    set: Options = Field(default_factory=dict, description="any keys of the recipe")
    row: str | None = Field(default=None, description="the published row to compare with; the method's name if null")
    without: str | None = Field(default=None, description="a run whose prompts are not asked, for a model as it is")

    @model_validator(mode="after")
    def _one_source(self) -> "Method":
        if (self.run and self.release) or (not self.trains and (self.mixture or self.set)):
            raise ValueError("it has a run or a release, one of them; without, nothing is trained: no mixture, no set")
        return self

    @property
    def trains(self) -> bool:
        """Whether there is a training at all."""
        return self.run is not None or self.release is not None


class Student(Part):
    """A model, and how it is trained."""

    recipe: str | None = Field(default=None, description="a recipe's name or file; a model that is trained needs one")
    checkpoint: str | None = Field(default=None, description="a folder or ORG/NAME; the recipe's if not given")
    set: Options = Field(default_factory=dict, description="any keys of the recipe")
    methods: tuple[str, ...] = Field(default=(), description="empty for all")
    base: str | None = Field(default=None, description="the published name of the model; this one's if not given")
    launch: str = Field(default="", description="what runs a training, e.g. accelerate launch --num_processes 4")
    gpus: Gpus = 1


class Server(Part):
    """A server that the study starts for the steps that ask it, at the address of its entry."""

    gpus: Annotated[int, Field(ge=1, le=64)] | None = Field(default=None, description="by its size if not given")
    bytes: float = Field(default=2.0, gt=0, le=8, description="of a parameter, as it is loaded: 2 for bfloat16")
    set: Options = Field(default_factory=dict, description="options of `vllm serve`")
    timeout_s: float = Field(default=1800, gt=0, description="how long loading may take")


class StudySpec(Part):
    """A study's file, what it extends already laid under it."""

    title: str = ""
    runs: dict[str, Options] = Field(default_factory=dict)
    methods: dict[str, Method] = Field(default_factory=dict)
    students: dict[str, Student] = Field(default_factory=dict)
    evaluations: dict[str, Options] = Field(default_factory=dict)
    servers: dict[str, Server] = Field(default_factory=dict)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(default=(42,), min_length=1)

    @field_validator("servers", mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _known_names(self) -> "StudySpec":
        named = [("runs", name) for one in self.methods.values() for name in (one.run, one.without) if name]
        named += [("methods", name) for one in self.students.values() for name in one.methods]
        for part, name in named:
            if name not in getattr(self, part):
                raise ValueError(f"'{name}' is none of its {part} ({', '.join(getattr(self, part)) or 'none'})")
        if not self.runs and not (self.students and self.methods and self.evaluations):
            raise ValueError("a study has runs, or students, methods and evaluations")
        return self


def study_names() -> list[str]:
    """The studies that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_study(name_or_path: str, settings: Sequence[Setting] = (), students: Sequence[str] = ()) -> StudySpec:
    """Read a study by its name or file.

    Args:
        name_or_path: One of `study_names()`, or a file.
        settings: What `--set` says.
        students: Of the study's, only these; all if empty.

    Raises:
        UserError: there is none, the file is not of that form, or has no such student.
    """
    values = override(_values(name_or_path), settings, StudySpec)
    spec = validated(StudySpec, values, f"study {Path(name_or_path).stem}")
    for student in students:
        if student not in spec.students:
            raise unknown("student of the study", student, spec.students)
    chosen = {name: one for name, one in spec.students.items() if not students or name in students}
    return spec.model_copy(update={"students": chosen, "seeds": tuple(dict.fromkeys(spec.seeds))})


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line: lists and mappings repeat the option, true is the option alone."""
    words: list[str] = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            value = [
                f"{name}={one if isinstance(one, str) else json.dumps(one, default=str)}" for name, one in value.items()
            ]
        if value is True:
            words.append(f"--{key}")
        elif value is not None and value is not False:
            words += [
                word for one in (value if isinstance(value, list) else [value]) for word in (f"--{key}", str(one))
            ]
    return words


def _values(name_or_path: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    path = FOLDER / f"{name_or_path}.yaml" if name_or_path in study_names() else Path(name_or_path)
    if not path.is_file():
        raise unknown("study", name_or_path, study_names())
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"Study {path} does not map keys to values. `saferthoughts study list` names ready ones.")
    under = values.pop("extends", None)
    if under is None:
        return values
    if len(above) == _MOST_EXTENDED or not isinstance(under, str):
        raise UserError(f"Study {path} extends '{under}': that takes a study's name or file, at most 5 in a row.")
    return _laid(_values(under, (*above, name_or_path)), values)


def _laid(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One nested mapping over another; a null takes an entry away."""
    found = dict(under)
    for key, value in over.items():
        below = found.pop(key, None)
        if value is not None:
            both = isinstance(below, dict) and isinstance(value, dict) and key != "mixture"
            found[key] = _laid(below, value) if both else value
    return found
