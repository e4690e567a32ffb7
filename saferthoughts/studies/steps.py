"""The steps of a study: data, trainings, evaluations, each one or more of our own commands, and what it needs first.

Reads the files that a study names; writes nothing. A step is named by everything that decides what it makes, so that
studies in one folder share what is the same: a run, a student, the evaluation of a model that nobody trained.

    runs/study-NAME-KEY/                        a run as any other, with its release
    studies/steps/KIND-NAME-KEY/                one step: step.sh, log.txt, step.json, lock, and what it made
    studies/STUDY/                              the study: steps.json, report.html, study.json
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import UserError
from pipelines.files import file_hash
from pipelines.settings.config import RunConfig
from pipelines.settings.overrides import settings_of
from saferthoughts.settings import RequestSettings, RunSettings, assignments, run_options
from saferthoughts.studies.spec import Method, Options, Student, StudySpec, load_study, words_of

# Reads the words of a command of ours, and gives its parameters by name.
Parse = Callable[[Sequence[str]], Mapping[str, Any]]
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
# What a run's rows do not depend on: budgets, engines, answers taken over; addresses and prices of entries.
_UNDECIDING = ("gpus", "queries", "teachers", *(name.replace("_", "-") for name in RequestSettings.__annotations__))


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work.

    Attributes:
        name: Unique, and the same in every study that has it.
        kind: What it is.
        needs: The steps that have to be done before.
        commands: Words after `saferthoughts --runs RUNS`, in order.
        folder: Its own, with its log.
        makes: What it leaves; a step without it is not done.
        labels: run; or student, method, seed and evaluation, as far as there are any: what the report goes by.
        gpus: GPUs that it is given.
        launch: What runs a Python module, in place of the interpreter.
        tables: Title to the CSV file that a query leaves.
    """

    name: str
    kind: Literal["data", "train", "eval"]
    needs: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    folder: Path
    makes: Path
    labels: Mapping[str, str]
    gpus: int = 0
    launch: str = ""
    tables: Mapping[str, Path] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is in the study, whatever its settings are."""
        return " ".join([self.kind, *(value for key, value in self.labels.items() if value and key != "folder")])


@dataclass(frozen=True, slots=True)
class Study:
    """A study's file expanded: its steps by name, none before those that it needs; `params` of each step's command."""

    name: str
    spec: StudySpec
    runs: Path
    steps: Mapping[str, Step]
    params: Mapping[str, Mapping[str, Any]]

    @property
    def folder(self) -> Path:
        """Where its report goes."""
        return self.runs.parent / "studies" / self.name

    def of(self, kind: str) -> list[Step]:
        """Its steps of a kind."""
        return [step for step in self.steps.values() if step.kind == kind]

    def config(self, step: Step) -> RunConfig:
        """A run's configuration, as `saferthoughts run` will settle it."""
        from pipelines.settings.options import configured

        given = {key: value for key, value in self.params[step.name].items() if key in RunSettings.__annotations__}
        return configured(run_options(**{key: value for key, value in given.items() if value not in (None, [], ())}))

    def parts(self, step: Step) -> tuple[Student, Method]:
        """The student and the method of a training or an evaluation."""
        return self.spec.students[step.labels["student"]], self.spec.methods[step.labels["method"]]


def open_study(
    name: str,
    runs: Path,
    parse: Parse,
    students: Sequence[str] = (),
    settings: Iterable[str] = (),
) -> Study:
    """Read and expand a study; `settings` are what `--set` says.

    Raises:
        UserError: the file is not right, or names an option, teacher, judge, variant, recipe or file that is not there.
    """
    spec = load_study(name, settings_of(settings, "evaluations.safety.limit=10"), students)
    steps = {step.name: step for step in _Expanded(spec, runs).steps()}
    params = {name: [parse(words) for words in step.commands] for name, step in steps.items()}
    study = Study(Path(name).stem, spec, runs, steps, {name: each[0] for name, each in params.items()})
    for step in study.of("data"):
        study.config(step)
    return study


def untrained(student: Student) -> str:
    """What a student is before training: a folder, or a model's name."""
    from training.recipes.recipe import load_recipe
    from training.students.student import NAME

    return student.checkpoint or (load_recipe(student.recipe).student if student.recipe else None) or NAME


def recipe_settings(student: Student, method: Method, seed: str) -> tuple[str, ...]:
    """What one training sets of the recipe."""
    mixture = {} if method.mixture is None else {"mixture": method.mixture}
    return assignments({**student.set, **method.set, **mixture, "seed": int(seed)})


class _Expanded:
    """The steps of one study, as they are made."""

    def __init__(self, spec: StudySpec, runs: Path) -> None:
        self.spec, self.runs = spec, runs
        self.place = runs.parent / "studies" / "steps"
        self.data: dict[str, Step] = {}

    def steps(self) -> Iterator[Step]:
        chosen = {name for one in self.spec.students.values() for name in one.methods or self.spec.methods}
        named = {run for name in chosen for run in (self.spec.methods[name].run, self.spec.methods[name].without)}
        for name in self.spec.runs:
            # What no chosen student is trained on is left out, in a study that trains.
            if name in named or not any(named):
                yield from self._data(name, ())
        for title, student in self.spec.students.items():
            for method in student.methods or self.spec.methods:
                yield from self._models(title, student, method)

    def _data(self, name: str, above: tuple[str, ...]) -> Iterator[Step]:
        """A run, with its release where a method wants one, after those whose answers it takes over."""
        if name in above:
            raise UserError(f"Runs of the study reuse each other in a circle: {' -> '.join([*above, name])}.")
        if name in self.data:
            return
        options = dict(self.spec.runs[name])
        check, select, queries, gpus = (options.pop(key, None) for key in ("check", "select", "queries", "gpus"))
        given = options.get("reuse") or []
        reused = [given] if isinstance(given, str) else list(given)
        for other in reused:
            if other in self.spec.runs:
                yield from self._data(other, (*above, name))
        key = _key(_deciding(self.spec.runs[name]))
        folder = f"study-{_plain(name)}-{key}"
        # Whoever asked the same under other settings has paid for it.
        before = [path.parent.name for path in sorted(self.runs.glob(f"study-{_plain(name)}-*/ledger.sqlite"))]
        taken = [self.data[other].labels["folder"] if other in self.data else other for other in reused]
        options["reuse"] = list(dict.fromkeys(one for one in (*taken, *before) if one != folder))
        own, makes = self.place / f"data-{_plain(name)}-{key}", self.runs / folder / "accepted.parquet"
        commands = [("run", folder, "--until", "repair" if check else "check", *words_of(options))]
        commands += [("check", folder, *words_of(check))] if check else []
        tables = {title: own / f"{_plain(title)}.csv" for title in queries or {}}
        commands += [("sql", folder, "--csv", str(table), "--", queries[title]) for title, table in tables.items()]
        if any(name in (method.run, method.without) for method in self.spec.methods.values()):
            commands += [("select", folder, *words_of(select))] if select else []
            commands.append(("release", "build", folder))
            makes = self.runs / folder / "release" / "lineage.json"
        needs = tuple(self.data[other].name for other in reused if other in self.data)
        labels = {"run": name, "folder": folder}
        self.data[name] = Step(own.name, "data", needs, tuple(commands), own, makes, labels, gpus or 0, tables=tables)
        yield self.data[name]

    def _models(self, title: str, student: Student, method_name: str) -> Iterator[Step]:
        method = self.spec.methods[method_name]
        for seed in map(str, self.spec.seeds) if method.trains else [""]:
            labels = {"student": title, "method": method_name, "seed": seed}
            trained = self._training(student, method, labels) if method.trains else None
            if trained:
                yield trained
            for name, options in self.spec.evaluations.items():
                yield self._evaluation(student, method, {**labels, "evaluation": name}, trained, options)

    def _training(self, student: Student, method: Method, labels: Mapping[str, str]) -> Step:
        from training.recipes.recipe import load_recipe

        if student.recipe is None:
            raise UserError(f"Student '{labels['student']}' has no recipe, and method '{labels['method']}' trains it.")
        given = recipe_settings(student, method, labels["seed"])
        what = load_recipe(student.recipe, settings_of(given)).model_dump(mode="json", exclude={"dataset"})
        rows = self.data[method.run] if method.run else None
        dataset = str(rows.makes.parent) if rows else str(method.release)
        name = _plain("-".join(labels.values()))
        own = self.place / f"train-{name}-{_key(what, student.checkpoint, rows.name if rows else dataset)}"
        words = ["train", student.recipe, "--dataset", dataset, "--output", str(own / name)]
        words += words_of({"student": student.checkpoint, "set": list(given)})
        needs, makes = (rows.name,) if rows else (), own / name / "training.json"
        return Step(own.name, "train", needs, (tuple(words),), own, makes, labels, student.gpus, student.launch)

    def _evaluation(
        self, student: Student, method: Method, labels: Mapping[str, str], trained: Step | None, options: Options
    ) -> Step:
        without = self.data[method.without] if method.without else None
        model = str(trained.makes.parent) if trained else untrained(student)
        needs = tuple(step.name for step in (trained, without) if step)
        row = {
            "base": labels["student"] if student.base is None else student.base,
            "variant": labels["method"] if method.row is None else method.row,
            "release": without.makes.parent if without else None,
        }
        name = f"eval-{_plain('-'.join(filter(None, labels.values())))}"
        own = self.place / f"{name}-{_key(_deciding(options), needs or model, row['base'], row['variant'])}"
        given = {key: value for key, value in options.items() if key != "gpus"}
        words = ("eval", model, *words_of({**given, **row, "output": own / "eval"}))
        makes = own / "eval" / "results.json"
        return Step(own.name, "eval", needs, (words,), own, makes, labels, int(options.get("gpus", 1)))


def _deciding(options: Options) -> list[Any]:
    """Options that decide what comes out, and the sha256 of every file that they name."""
    decide = {key: value for key, value in options.items() if key not in _UNDECIDING}
    named = [Path(str(one).partition("?")[0]) for one in decide.values()]
    files = [
        part for path in named if path.exists() for part in ([path] if path.is_file() else sorted(path.rglob("*")))
    ]
    return [decide, [file_hash(path) for path in files if path.is_file()]]


def _plain(name: str) -> str:
    return _PLAIN.sub("-", name).strip(".-")[:80] or "x"


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
