"""The plan of an evaluation: its tasks, built, checked, and fingerprinted by all that decides their figures.

Reads the tasks' data; writes nothing. `eval/run/stage.py` runs a plan.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inspect_ai import Task, task_with

from eval.models.inspect_models import ModelRoles, Role
from eval.models.kept_replies import KeptReplies
from eval.protocols import EXCLUDE, PAPER, SHORT, Settings, settings
from eval.run.answers import Expected, expected_of
from eval.run.facts import facts_of, tags_of
from eval.run.results import ScoreMode
from eval.sources import trained_on_question
from eval.suites import QUICK, chosen_tasks, ready
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec
from pipelines.errors import UserError, unknown
from pipelines.progress import console

# Each role is given by the option of its name.
_EXAMPLES = {"guard": "llama-guard-3", "judge": "openai", "attacker": "vllm"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An evaluation as the user asks for it; see `TaskRequest` for what concerns a single task.

    Args:
        suite: A suite's name. Of `quick` the bundled samples are read.
        tasks: Tasks in place of the suite's.
        protocol: A protocol's name; None for `quick` where the bundled sample is asked, and `paper` elsewhere.
        overrides: Settings by task, laid over the protocol's.
        roles: Who judges and attacks.
        data: Local files by task.
        trained: sha256 of the prompts that the student was trained on; None where nobody knows.
        kept: The folder of the attacker's replies that evaluations share; None where each asks for its own.
    """

    suite: str = QUICK
    tasks: tuple[str, ...] = ()
    protocol: str | None = None
    overrides: Mapping[str, Settings] = field(default_factory=dict)
    roles: ModelRoles = field(default_factory=ModelRoles)
    limit: int | None = None
    score: ScoreMode = "full"
    data: Mapping[str, Path] = field(default_factory=dict)
    trained: frozenset[str] | None = None
    kept: Path | None = None

    def bundled(self, task: str) -> bool:
        """Whether a task's small bundled sample is asked."""
        return self.suite == QUICK and task not in self.data


@dataclass(frozen=True, slots=True)
class Planned:
    """One task as it will be asked. `fingerprint` is the sha256 of everything that decides its figures but the model.

    `roles` are those that it asks, `expected` the answers that each model is to give.
    """

    spec: TaskSpec
    request: TaskRequest
    built: BuiltTask
    roles: Mapping[str, Role]
    expected: tuple[Expected, ...]
    facts: Mapping[str, Any]
    fingerprint: str

    def task(self, models: Mapping[str, Any], kept: KeptReplies | None = None) -> Task:
        """Inspect's task for one model: named, with its fingerprint as version, the facts in its log.

        Args:
            models: What is asked beside it, as in "gpt-4o as judge".
            kept: The attacker's replies that are kept.
        """
        return task_with(
            self.spec.build(replace(self.request, kept=kept)).task,
            name=self.spec.name,
            version=self.fingerprint[:16],
            metadata={"saferthoughts": dict(self.facts)},
            tags=tags_of(self.spec, self.request, self.facts["protocol"]),
            model_roles={name: models[f"{role.name} as {name}"] for name, role in self.roles.items()},
        )


def plan(wanted: Wanted) -> tuple[Planned, ...]:
    """Build every task.

    Raises:
        UserError: an unknown or impossible task, a role that is missing, a limit below 1, data for no task or of no
            file, or whatever a task refuses.
    """
    if wanted.limit is not None and wanted.limit < 1:
        raise UserError(f"--limit is {wanted.limit}. It must be at least 1.")
    names = chosen_tasks(wanted.suite, wanted.tasks)
    for name, path in wanted.data.items():
        if name not in names:
            raise unknown("task in --data", name, names)
        if not path.is_file():
            raise UserError(f"--data {name}={path}: there is no such file.")
    return tuple(_planned(name, found, wanted) for name, found in ready(names).items())


def _planned(name: str, spec: TaskSpec, wanted: Wanted) -> Planned:
    bundled, roles_here = wanted.bundled(name), wanted.roles.of(name)
    protocol = wanted.protocol or (SHORT if bundled else PAPER)
    request = TaskRequest(
        settings=_settings(protocol, name, wanted),
        data=wanted.data.get(name),
        bundled=bundled,
        limit=wanted.limit,
        score=wanted.score,
        guard=roles_here.form,
        judged=roles_here.judge is not None,
        trained=wanted.trained or frozenset(),
    )
    given = roles_here.given()
    needed = spec.roles(request)
    if missing := [role for role in needed if role not in given]:
        flags = ", ".join(f"--{role} NAME" for role in missing)
        example = " ".join(f"--{role} {_EXAMPLES[role]}" for role in missing)
        raise UserError(
            f"Task '{name}' asks a model as {' and as '.join(missing)}: give {flags}, such as {example}. Names are "
            "those of `saferthoughts teachers list`."
        )
    built = spec.build(request)
    samples = list(built.task.dataset)
    asked = [str((sample.metadata or {}).get("question") or sample.input) for sample in samples]
    if known := sum(trained_on_question(request.trained, question) for question in asked):
        message = f"{name}: the model was trained on {known} of the {len(asked)} questions"
        console.print(f"{message}; --set {name}.{EXCLUDE}=true leaves them out", markup=False, soft_wrap=True)
    roles = {role: given[role] for role in needed}
    facts = facts_of(spec, request, built, protocol, roles_here.names_of(roles, spec.decided_by))
    fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    expected = tuple(expected_of(samples, built.task.epochs or 1))
    if not expected:
        raise UserError(f"Task '{name}' has no question left to ask. Raise --limit, or give other --data.")
    return Planned(spec, request, built, roles, expected, facts, fingerprint)


def _settings(protocol: str, name: str, wanted: Wanted) -> Settings:
    """The task's settings. Excluding trained prompts is turned off where the training data is unknown.

    Raises:
        UserError: the user asks for it all the same.
    """
    found = settings(protocol, name, wanted.overrides)
    if wanted.trained is None and found.get(EXCLUDE):
        unknown_release = "nothing tells which release the model was trained on"
        if EXCLUDE in wanted.overrides.get(name, {}):
            raise UserError(f"--set {name}.{EXCLUDE}=true: {unknown_release}. Name it with --release FOLDER.")
        found[EXCLUDE] = False
        message = f"{name}: {unknown_release}, so no prompt is left out as trained on; --release FOLDER names one"
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    return found
