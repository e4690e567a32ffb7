"""How each task is decoded and run: the named protocols, and single values laid over them.

Reads `protocols.yaml` beside this file; writes nothing. A value that a protocol does not give is as under `paper`,
and a task that none names has the settings of its own `TASK`.
"""

import copy
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.settings.overrides import Setting, key_and_value, override, settings_of
from pipelines.settings.parts import read_yaml

PROTOCOLS = Path(__file__).with_name("protocols.yaml")
# The study's paper, and what bundled samples are asked under.
PAPER, SHORT = "paper", "quick"
# A setting of tasks: prompts that the student was trained on are left out.
EXCLUDE = "exclude_trained"
Settings = dict[str, Any]
# Settings that every task has (eval/models/begun.py); one that is not given is no part of what is recorded.
THINKING, PROBE = "thinking", "probe"
COMMON: Mapping[str, Any] = {THINKING: "as_is", PROBE: True}
# The same, of single tasks.
_OPTIONAL: Mapping[str, Settings] = {"pair": {"replay": "none"}}
# The settings that are no whole numbers, with what endpoints accept.
_REAL = {"temperature": (0.0, 2.0), "top_p": (0.0, 1.0)}


@cache
def _all() -> dict[str, dict[str, Settings]]:
    values: dict[str, dict[str, Settings]] = read_yaml(PROTOCOLS)
    return values


def names() -> list[str]:
    """The protocols' names, the default first."""
    return list(_all())


def settings(protocol: str, task: str, overrides: Mapping[str, Settings] | None = None) -> Settings:
    """What decides how a task is asked under a protocol, with a user's overrides on top.

    Args:
        protocol: One of `names()`.
        overrides: As `parsed` gives them.

    Raises:
        UserError: an unknown protocol.
    """
    if protocol not in _all():
        raise unknown("protocol", protocol, names())
    from eval.suites import entry  # which imports Inspect

    found = copy.deepcopy(_all()[PAPER][task] if task in _all()[PAPER] else dict(entry(task).settings))
    for values in (_all()[protocol].get(task, {}), (overrides or {}).get(task, {})):
        _lay_over(found, values)
    return found


def parsed(texts: Iterable[str], tasks: Iterable[str]) -> dict[str, Settings]:
    """`TASK.key=value` texts as values by task; a value is read as YAML, and a dot reaches into a part of a task.

    Raises:
        UserError: it is not of that form, the task is not among `tasks`, it has no such key, or the value is of
            another kind than the protocol's.
    """
    chosen = list(tasks)
    overrides: dict[str, Settings] = {}
    for text in texts:
        key, _ = key_and_value(text, example="pair.streams=3")
        task, _, path = key.partition(".")
        if not path:
            raise UserError(f"--set takes TASK.key=value, such as --set pair.streams=3; it got '{text}'.")
        if task not in chosen:
            raise unknown("task in --set", task, chosen)
        known = {task: _every_key(task)}
        setting = settings_of([text])[0]
        overrides = override(overrides, [setting], {**dict.fromkeys(chosen), **known})
        _check_all(setting, override({}, [setting], known), known)
    return overrides


def _every_key(task: str) -> Settings:
    """The task's settings with every key that some protocol gives it."""
    found: Settings = {**COMMON, **_OPTIONAL.get(task, {})}
    for protocol in reversed(names()):
        _lay_over(found, settings(protocol, task))
    return found


def _check_all(setting: Setting, value: Any, known: Any, key: str = "") -> None:
    """Refuse a value of another kind than the protocol's, and a number that no endpoint would take."""
    if isinstance(value, dict) and isinstance(known, dict):
        for name, inner in value.items():
            if name not in known:
                raise unknown(f"key in {setting}", name, known)
            _check_all(setting, inner, known[name], name)
    else:
        _check(setting, key, value, known)


def _check(setting: Setting, key: str, value: Any, known: Any) -> None:
    if key in _REAL:
        low, high = _REAL[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f"{setting}: {key} is a number from {low:g} to {high:g}.")
    elif type(value) is not type(known):
        raise UserError(f"{setting}: the value must be of the kind of {known!r}, which the protocol has.")
    elif isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise UserError(f"{setting}: {key} must be at least 1.")


def _lay_over(values: Settings, over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _lay_over(values[key], value)
        else:
            values[key] = copy.deepcopy(value)
