"""The list of runs, and one of them: / and /ui/runs/RUN with /live, /spoken, /actions and its buttons."""

import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.responses import Response

from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from saferthoughts.status import next_step
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.http.shapes import RunState
from service.jobs.queue import OPEN
from service.page.forms import again_in, budget_in, publish_in
from service.page.screens.shared import Place, Posted, Viewer, page, to
from service.run import api
from service.run.run_reader import spoken

PER_PAGE = 12
_NUMBER = re.compile(r"[0-9]{1,18}")

router = APIRouter(include_in_schema=False)
PLACE = Place(10, "Runs", "/")


Part = Annotated[str, Query(max_length=64)]
Offset = Annotated[int, Query(ge=0, le=10**6)]


@router.get("/")
def list_runs(caller: Viewer, state: AppStateOf, q: Part = "", offset: Offset = 0) -> Response:
    """The runs by page."""
    return page("runs", caller, **_runs(state, q, offset))


@router.get("/ui/list")
def runs_part(caller: Viewer, state: AppStateOf, seen: str = "", q: Part = "", offset: Offset = 0) -> Response:
    """The list again, where it has changed."""
    found = _runs(state, q, offset)
    return Response(status_code=204) if seen == found["mark"] else page("runs_part", caller, **found)


def _runs(state: AppState, q: str, offset: int) -> dict[str, Any]:
    import hashlib

    total, states = state.run_states(q.strip(), offset, PER_PAGE)
    text = str(total) + "".join(run.model_dump_json() for run in states)
    mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    asked = {"total": total, "q": q, "offset": offset, "per_page": PER_PAGE}
    return {"runs": states, "mark": mark, **asked}


@router.get("/ui/runs/{name}")
def show_run(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """One run: its state and its actions."""
    return page("run", caller, tab="run", **_run(state, name))


@router.get("/ui/runs/{name}/live")
def run_part(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """The part of a run's page that moves."""
    return page("run_part", caller, **_run(state, name))


@router.get("/ui/runs/{name}/spoken")
def run_spoken(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """A run's state as a screen reader announces it."""
    return page("spoken", caller, spoken=spoken(state.run_state(name)))


@router.get("/ui/runs/{name}/actions")
def run_actions(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """What can be done with a run now."""
    return page("actions", caller, **_run(state, name))


def _run(state: AppState, name: str) -> dict[str, Any]:
    run = state.run_state(name)
    return {
        "run": run,
        "spoken": spoken(run),
        "has_rows": RunFolder(state.runs / name).table_path("responses").exists(),
        "argilla": _argilla(state),
        **_next(state, run),
    }


def _next(state: AppState, run: RunState) -> dict[str, str]:
    """What a run waits for, in words, and the button for it: resume, release, or look at what is there."""
    if run.state == "broken" or (run.job is not None and run.job.state in OPEN):
        return {"waits_for": "", "button": ""}
    folder = state.run(run.name)
    waits_for, command = next_step(folder, load_config(folder), folder.manifest()["stages"])
    first = (command or "").split()[1:2]
    goes_on = {"release": "release", "run": "resume", "review": "review"}.get("".join(first), "")
    return {"waits_for": waits_for, "button": goes_on or ("look" if run.version else "")}


def _argilla(state: AppState) -> str | None:
    try:
        return api.check_review(state)
    except Problem:
        return None


@router.post("/ui/runs/{name}/{action}")
def act(name: str, action: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """A button of a run's page: checks the role, then does what the API does."""
    # What is repeated asks for the role of its kind as well.
    check_role(caller, "publish" if action == "publish" else "run")
    if action == "cancel":
        api.cancel(name, caller, state)
    elif action == "resume":
        api.resume(name, caller, state, budget_in(form))
    elif action == "release":
        api.release(name, caller, state)
    elif action == "review":
        api.review(name, caller, state)
    elif action == "publish":
        api.publish(name, publish_in(form), caller, state)
    elif action == "repeat":
        number = form.text("job")
        api.repeat(name, int(number) if _NUMBER.fullmatch(number) else 0, caller, state)
    elif action == "regenerate":
        wanted = again_in(form, name)
        api.regenerate(wanted, caller, state)
        name = wanted.name
    else:
        raise Problem(404, f"There is no button '{action}'.")
    own = action in ("release", "publish") or form.text("back") == "release"
    return to(f"/ui/runs/{quote(name)}{'/release' if own else ''}")
