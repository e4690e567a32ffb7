"""Keyword settings of the API, and what the stages make of them.

Reads the environment variable SAFERTHOUGHTS_RUNS; writes nothing. Each name is that of the command line's option, and
None is the same as leaving a setting out.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.runner.options import RequestOptions
    from pipelines.settings.changes import Consent
    from pipelines.settings.options import Options
    from saferthoughts.run import Run

# Values by key, or texts "key=value" as the command line takes them.
Assignments = Mapping[str, Any] | Iterable[str]
# Whether a change may cost a run what it has: yes, no, or a function that is given the cost and raises where not.
Agreement = bool | Callable[[str], None]
StoredPath = str | Path


class EngineSettings(TypedDict, total=False):
    """Where a stage computes.

    Attributes:
        engine: "local", or "ray" for a cluster.
        ray_address: "HOST:PORT" or "auto"; a cluster on this machine if not given.
    """

    engine: str
    ray_address: str | None


class RequestSettings(EngineSettings, total=False):
    """How a stage makes its requests, with `EngineSettings`.

    Attributes:
        max_cost: US dollars that the run may cost, all calls together; at the cap the call raises `Incomplete`.
        max_tokens: Most tokens for the run, all calls together.
        max_failed: The share of rows, 0 to 1, that may be refused for good without an error; 0.05 if not given.
        reuse: Runs, or names of runs in the same folder, whose answers are taken over and cost nothing.
        allow_no_reasoning: Continue with a teacher that shows no reasoning.
    """

    max_cost: float | None
    max_tokens: int | None
    max_failed: float | None
    reuse: "Iterable[Run | str] | None"
    allow_no_reasoning: bool


class ChangeSettings(TypedDict, total=False):
    """What a stage changes in run.yaml before it begins.

    Attributes:
        settings: Any keys of run.yaml, dotted, as in `{"repair.attempts": 3}`.
        teachers: A teachers.yaml of your own.
        agree: Change the run although prompts or answers of it would go, or a teacher.
    """

    settings: Assignments | None
    teachers: StoredPath | None
    agree: Agreement


class StageSettings(RequestSettings, ChangeSettings, total=False):
    """What every stage that asks models takes: `RequestSettings` and `ChangeSettings`."""


class TeacherSettings(TypedDict, total=False):
    """Who answers.

    Attributes:
        teacher: A name of `saferthoughts teachers list`.
        base_url: An endpoint instead of a named teacher.
        model: The model to ask for there.
        api_key_env: The environment variable with its key.
        teacher_name: Name of that teacher; the model's if not given.
    """

    teacher: str | None
    base_url: str | None
    model: str | None
    api_key_env: str | None
    teacher_name: str | None


class RepairSettings(StageSettings, TeacherSettings, total=False):
    """What a repair takes: `StageSettings`, and `TeacherSettings` of a run that has no teacher of its own."""


class AnsweringSettings(TeacherSettings, total=False):
    """Who answers which variant, with `TeacherSettings`.

    Attributes:
        general_teacher: Who answers the variants of a general model instead.
        teachers: A teachers.yaml of your own.
    """

    general_teacher: str | None
    teachers: StoredPath | None


class RunSettings(AnsweringSettings, total=False):
    """What a run is made of, with `AnsweringSettings`.

    Attributes:
        config: A run.yaml with the initial settings.
        prompts: "bundled", a folder, or a file of prompts.
        kind: "harmful" or "benign", for a file that does not say.
        columns: Field to column, for a file whose columns have other names.
        harmful_file: A published set of harmful prompts, in place of `prompts`: FILE or OWNER/NAME[:CONFIG[:SPLIT]].
        templates_file: The same for jailbreak templates.
        benign_file: The same for benign prompts.
        harmful: How many harmful prompts; all combinations if not given.
        benign: How many benign prompts; all if not given.
        seed: Seed of the draw.
        variants: The variants to make.
        instructions: Files with another wording, by variant.
        judges: Who judges; several vote.
        settings: Any keys of run.yaml, dotted.
    """

    config: StoredPath | None
    prompts: StoredPath | None
    kind: str | None
    columns: Assignments | None
    harmful_file: StoredPath | None
    templates_file: StoredPath | None
    benign_file: StoredPath | None
    harmful: int | None
    benign: int | None
    seed: int | None
    variants: Iterable[str] | None
    instructions: Assignments | None
    judges: Iterable[str] | None
    settings: Assignments | None


def runs_folder(runs: StoredPath | None) -> Path:
    """The folder of run folders: the given one, that of SAFERTHOUGHTS_RUNS, or runs/ here."""
    return Path(runs or os.environ.get("SAFERTHOUGHTS_RUNS") or "runs")


def texts_of(values: Iterable[str] | None) -> tuple[str, ...]:
    """Several texts, of which one alone may stand for itself."""
    return (values,) if isinstance(values, str) else tuple(values or ())


def assignments(values: Assignments | None) -> tuple[str, ...]:
    """Settings as "key=value", the value as YAML."""
    if isinstance(values, Mapping):
        return tuple(f"{key}={json.dumps(value, default=str)}" for key, value in values.items())
    return texts_of(values)


def files_by_name(values: Assignments | None) -> tuple[str, ...]:
    """Files by name as "name=FILE"."""
    return tuple(f"{name}={file}" for name, file in values.items()) if isinstance(values, Mapping) else texts_of(values)


def columns_of(values: Assignments | None) -> dict[str, str]:
    """Field to column, which may be given as "field=column".

    Raises:
        UserError: a text that is neither.
    """
    from pipelines.settings.overrides import key_and_value

    if isinstance(values, Mapping):
        return {field: str(column) for field, column in values.items()}
    return dict(key_and_value(text, "--map", "prompt=question") for text in texts_of(values))


def path_of(value: StoredPath | None) -> Path | None:
    """A path that may be given as text."""
    return None if value is None else Path(value)


def run_options(
    *,
    config: StoredPath | None = None,
    prompts: StoredPath | None = None,
    columns: Assignments | None = None,
    harmful_file: StoredPath | None = None,
    templates_file: StoredPath | None = None,
    benign_file: StoredPath | None = None,
    variants: Iterable[str] | None = None,
    teachers: StoredPath | None = None,
    teacher_name: str | None = None,
    instructions: Assignments | None = None,
    judges: Iterable[str] | None = None,
    settings: Assignments | None = None,
    also: Mapping[str, Any] | None = None,
    **plain: Any,
) -> "Options":
    """`RunSettings` as a run's configuration takes them; `also` has values of run.yaml that are not None.

    Raises:
        TypeError: there is no such setting.
    """
    from pipelines.settings.options import Options

    files = {"harmful": harmful_file, "benign": benign_file, "templates": templates_file}
    return Options(
        config=path_of(config),
        source=None if prompts is None else str(prompts),
        columns=columns_of(columns),
        files={part: str(place) for part, place in files.items() if place is not None},
        variants=texts_of(variants),
        teachers=path_of(teachers),
        name=teacher_name,
        instructions=files_by_name(instructions),
        judges=texts_of(judges),
        sets=assignments(settings),
        also={key: value for key, value in (also or {}).items() if value is not None},
        **plain,
    )


def request_options(
    runs: Path,
    *,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    max_failed: float | None = None,
    reuse: "Iterable[Run | str] | None" = None,
    engine: str = "local",
    ray_address: str | None = None,
    allow_no_reasoning: bool = False,
) -> "RequestOptions":
    """`RequestSettings` as the stages take them.

    Raises:
        UserError: a run to reuse that is not there, an engine that is none, a cap below nothing, or a share that is
            none.
    """
    from pipelines.runner.options import Caps, Engine, RequestOptions
    from pipelines.runner.outcomes import MAX_FAILED
    from pipelines.runs import RunFolder

    for name, value in (("max_cost", max_cost), ("max_tokens", max_tokens)):
        if value is not None and not value >= 0:
            raise UserError(f"{name} is {value}. It takes 0 or more.")
    if max_failed is not None and not 0 <= max_failed <= 1:
        raise UserError(f"max_failed is {max_failed}. It takes a share between 0 and 1, such as 0.05.")
    names = [reuse] if isinstance(reuse, str) else reuse or ()
    folders = [RunFolder.open(runs, one) if isinstance(one, str) else one.folder for one in names]
    return RequestOptions(
        caps=Caps(max_cost, max_tokens),
        reuse=tuple(folder.path / "ledger.sqlite" for folder in folders),
        engine=Engine(engine, ray_address),
        max_failed=MAX_FAILED if max_failed is None else max_failed,
        allow_no_reasoning=allow_no_reasoning,
    )


def checks_folder(checks: StoredPath | None) -> str | None:
    """A folder of checks of one's own, as run.yaml has it.

    Raises:
        UserError: it is not there, or has no queries.
    """
    from curation.quality.checks import checks_of

    if checks is None:
        return None
    checks_of(str(checks))
    return str(Path(checks).resolve())


def consent_of(agree: Agreement, refusing: "Consent | None" = None) -> "Consent":
    """Who agrees to what is shown: what a change costs a run, unless `refusing` says what a refusal is of."""
    from pipelines.settings.changes import refuse

    if callable(agree):
        return agree
    return (lambda shown: None) if agree else refusing or refuse
