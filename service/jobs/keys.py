"""Keys of this session: which variable each teacher, judge and server needs, whether it is set, and values given here.

A value that is given on the page is held in this process's memory and in the environment of the jobs and helpers that
it starts. It is written nowhere and shown nowhere, and is gone when the service stops.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from curation.review.home import KEY_VARIABLE
from pipelines.errors import UserError, unknown
from pipelines.settings.judge import Judge
from pipelines.settings.teacher import Teacher

HUB_VARIABLE = "HF_TOKEN"
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class KeyState:
    """One environment variable: what needs it, and where its value is from: environment, session, or missing."""

    variable: str
    needed_by: tuple[str, ...]
    state: str


class SessionKeys:
    """Values that were given on the page, by variable; those of the environment come back when they are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[str, str] = {}
        self._before: dict[str, str | None] = {}

    def values(self) -> dict[str, str]:
        """What jobs get on top of the service's own environment."""
        with self._lock:
            return dict(self._given)

    def put(self, variable: str, value: str, known: Mapping[str, object]) -> None:
        """Hold a value.

        Raises:
            UserError: a variable that nothing here needs, or a value that no key can have. It is not repeated.
        """
        if variable not in known:
            raise unknown("variable", variable[:200], known)
        value = value.strip()
        if not value or len(value) > _LONGEST or not value.isascii() or not value.isprintable() or " " in value:
            raise UserError(f"This is no key for {variable}: a key is one word of visible ASCII letters and signs.")
        with self._lock:
            self._before.setdefault(variable, os.environ.get(variable))
            self._given[variable] = value
            # What this process asks itself, such as the test of a teacher, reads the environment; so do the places that
            # cut keys out of errors.
            os.environ[variable] = value

    def forget(self, variable: str) -> None:
        """Let go of a value."""
        with self._lock:
            if self._given.pop(variable, None) is None:
                return
            before = self._before.pop(variable)
            if before is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = before


def key_states(keys: SessionKeys, teachers: Mapping[str, Teacher], judges: Mapping[str, Judge]) -> list[KeyState]:
    """Every variable that something here needs, by name; never its value."""
    needed: dict[str, list[str]] = {
        HUB_VARIABLE: ["the Hub: publishing, gated models and data"],
        KEY_VARIABLE: ["an Argilla server of your own"],
    }
    for name, teacher in teachers.items():
        if teacher.api_key_env is not None:
            asked_by = [judge for judge, entry in judges.items() if entry.teacher == name]
            needed.setdefault(teacher.api_key_env, []).extend(
                [f"teacher {name}", *(f"judge {judge}" for judge in asked_by)]
            )
    given = keys.values()
    return [
        KeyState(
            variable,
            tuple(users),
            "session" if variable in given else "environment" if os.environ.get(variable, "").strip() else "missing",
        )
        for variable, users in sorted(needed.items())
    ]
