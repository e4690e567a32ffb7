"""Which tasks there are, and which of them a suite has.

A file of eval/tasks/ is a task by itself. It is imported when the task is asked for, so that a package that one of them
needs and that is not there does not take the others away.
"""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import UserError, unknown

if TYPE_CHECKING:
    from eval.task_spec import TaskSpec

# The order in which tasks are run and shown; files beyond these follow in alphabetical order.
_STUDY = ("none", "pap", "pair", "xstest")
_ATTACKS = (*_STUDY[:3], "crescendo", "strongreject", "harmbench", "jailbreakbench", "wildjailbreak", "prefill")
_STATIC = ("past_tense", "translation")
_REFUSING = ("xstest", "xstest_contrasts", "orbench", "falsereject", "wildjailbreak_benign")
_REASONING = ("math500", "aime24", "livecodebench")
_USEFUL = ("gsm8k", "gpqa", "humaneval", "ifeval")
_ORDER = ("refusal", *_STUDY, *_REASONING, *_ATTACKS[3:], *_STATIC, *_REFUSING[1:], *_USEFUL)
_FILES = {path.stem for path in Path(__file__).with_name("tasks").glob("[!_]*.py")}
TASKS = (*(name for name in _ORDER if name in _FILES), *sorted(_FILES - set(_ORDER)))
SUITES: dict[str, tuple[str, ...]] = {
    "paper": (*_STUDY, *_REASONING),
    "safety": _STUDY,
    "reasoning": _REASONING,
    # Beyond the study: what the field asks.
    "attacks": (*_ATTACKS, *_STATIC),
    "over-refusal": _REFUSING,
    "useful": (*_USEFUL, *_REASONING),
    # On the bundled samples, with string rules: runs with nothing.
    "quick": ("refusal", "none", "xstest", "math500"),
}
QUICK = "quick"


def chosen_tasks(suite: str, tasks: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of the tasks to run: those named, or those of the suite, in the order of `TASKS` and each once.

    Raises:
        UserError: an unknown suite or task.
    """
    if suite not in SUITES:
        raise unknown("suite", suite, SUITES)
    named = tuple(tasks)
    for name in named:
        if name not in TASKS:
            raise unknown("task", name, TASKS)
    return tuple(name for name in TASKS if name in (named or SUITES[suite]))


def entry(name: str) -> "TaskSpec":
    """A task by name.

    Raises:
        UserError: an unknown name.
        ModuleNotFoundError: the task needs a package that is not installed; names it.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    from eval.task_spec import TaskSpec  # which imports Inspect

    found = import_module(f"eval.tasks.{name}").TASK
    if not isinstance(found, TaskSpec) or found.name != name:
        raise TypeError(f"eval/tasks/{name}.py does not end with the TASK of '{name}'.")
    return found


def ready(names: Iterable[str]) -> "dict[str, TaskSpec]":
    """The tasks by name, all of which can run here.

    Raises:
        UserError: one of them cannot; says why, before anything runs.
    """
    specs = {name: entry(name) for name in names}
    for name, found in specs.items():
        if reason := found.needs():
            rest = [other for other in specs if other != name]
            others = f" The others alone: {' '.join(f'--task {other}' for other in rest)}." if rest else ""
            raise UserError(f"Task '{name}' cannot run here: {reason.rstrip('.')}.{others}")
    return specs
