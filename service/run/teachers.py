"""Teachers as the service shows them, and the test of one.

Where a teacher is and what its key is never leave the service.
"""

import os
import re
import time
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.settings.teacher import Teacher
from service.app_state import AppState
from service.http.problems import Problem
from service.http.shapes import TeacherState, TeacherTest
from service.store import home_of

_LONGEST_S = 60.0
_ADDRESS = re.compile(r"\w+://\S+")


def listed(state: AppState) -> list[TeacherState]:
    """Every teacher that a run may name, with its last test."""
    tests = {row["teacher"]: row for row in state.store.all("SELECT * FROM tests")}
    return [_state(name, entry, tests.get(name)) for name, entry in state.known_teachers().items()]


def _state(name: str, entry: Teacher, test: dict[str, Any] | None) -> TeacherState:
    key = "not needed" if entry.api_key_env is None else "set" if os.environ.get(entry.api_key_env) else "missing"
    kind = "rehearsal" if entry.embedded else "served" if entry.serve else "endpoint"
    return TeacherState(
        name=name,
        model=entry.model,
        kind="batch" if entry.transport == "batch" else kind,  # type: ignore[arg-type]
        key=key,  # type: ignore[arg-type]
        priced=entry.price is not None,
        test=TeacherTest(**{key: test[key] for key in ("at", "answers", "message")}) if test else None,
    )


def test(state: AppState, name: str) -> TeacherState:
    """Ask a teacher one mild question, and remember whether it answered.

    Raises:
        Problem: 404, no such teacher; 409, one whose server is started for a run only.
    """
    from pipelines.teachers.probe import probe, probe_words

    known = state.known_teachers()
    if name not in known:
        raise Problem(404, str(unknown("teacher", name, known)))
    entry = known[name]
    if entry.serve is not None:
        raise Problem(
            409, f"The server of '{name}' is started for a run. Test it with: saferthoughts teachers test {name}"
        )
    patient = entry.model_copy(update={"attempt_timeout_s": min(entry.attempt_timeout_s, _LONGEST_S)})
    try:
        found = probe(name, patient, home_of(state.runs))
        message = "; ".join(probe_words(one) for one in found)
        answers = True
    except UserError as error:
        message, answers = str(error), False
    message = _ADDRESS.sub("its endpoint", message)
    state.store.change("INSERT OR REPLACE INTO tests VALUES (?, ?, ?, ?)", name, time.time(), answers, message)
    return next(teacher for teacher in listed(state) if teacher.name == name)
