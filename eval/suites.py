"""Which tasks there are, and which of them a suite has.

Reads nothing until a task is asked for: `eval/tasks/NAME.py` is imported then, so that a package that one of them needs
and that is not there does not take the others away.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from eval.task_spec import Entry
from pipelines.errors import UserError, unknown

TASKS = ("refusal", "none", "pap", "pair", "xstest", "math500", "aime24", "livecodebench")
SUITES: dict[str, tuple[str, ...]] = {
    "paper": ("none", "pap", "pair", "xstest", "math500", "aime24", "livecodebench"),
    "safety": ("none", "pap", "pair", "xstest"),
    "reasoning": ("math500", "aime24", "livecodebench"),
    # On the bundled samples, with string rules: runs with nothing.
    "quick": ("refusal", "none", "xstest", "math500"),
}
QUICK = "quick"
# The tasks whose figure is what a guard says, and what a judge says; string rules do where there is none.
GUARDED = ("none", "pap", "pair")
JUDGED = ("xstest",)


def decides(task: str) -> str:
    """Which role a task's figure is the word of: guard or judge, "" where it is counted."""
    return "guard" if task in GUARDED else "judge" if task in JUDGED else ""


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


def entry(name: str) -> Entry:
    """A task by name.

    Raises:
        UserError: an unknown name.
        ModuleNotFoundError: the task needs a package that is not installed; names it.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    if find_spec(f"eval.tasks.{name}") is None:
        raise UserError(f"Task '{name}' is not part of this version. Leave it out, or choose others with --task.")
    found = import_module(f"eval.tasks.{name}").ENTRY
    if not isinstance(found, Entry) or found.name != name:
        raise TypeError(f"eval/tasks/{name}.py does not end with the ENTRY of '{name}'.")
    return found


def ready(names: Iterable[str]) -> dict[str, Entry]:
    """The tasks by name, all of which can run here.

    Raises:
        UserError: one of them cannot; says why, before anything runs.
    """
    entries = {name: entry(name) for name in names}
    for name, found in entries.items():
        if reason := found.needs():
            rest = [other for other in entries if other != name]
            others = f" The others alone: {' '.join(f'--task {other}' for other in rest)}." if rest else ""
            raise UserError(f"Task '{name}' cannot run here: {reason.rstrip('.')}.{others}")
    return entries
