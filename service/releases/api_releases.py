"""The HTTP API of releases: those of the runs, and those of others, pulled from the Hub, asked about and compared."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.app_state import AppState
from service.http import shapes
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.releases import releases
from service.run import api, starting

router = APIRouter(responses=api.router.responses, tags=["releases"])
Key = Annotated[str, Query(max_length=300, description="run:NAME, pulled:NAME or hub:ORG/NAME@vVERSION")]


@router.get("/releases")
def list_releases(
    caller: api.Reader,
    state: AppStateOf,
    response: Response,
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[shapes.ReleaseState]:
    """Releases that were pulled, then those of runs, the newest first, by page; `x-total-count` has how many."""
    pulled = [releases.pulled_folder(state.runs, name) for name in releases.pulled(state.runs)]
    found = [*pulled, *releases.own(state.runs)]
    response.headers["x-total-count"] = str(len(found))
    return [_shape(state, releases.listed(folder)) for folder in found[offset : offset + limit]]


@router.post("/releases/pull", status_code=202)
def pull(wanted: shapes.PullWanted, caller: api.Runner, state: AppStateOf) -> shapes.ReleaseState:
    """Pull a release of somebody else from the Hub, as a job; GET /releases/pulled/{name} says how far it is."""
    name = releases.pull(state, wanted.repo, wanted.version or "", caller)
    return show_pulled(name, caller, state)


@router.get("/releases/pulled/{name}")
def show_pulled(name: str, caller: api.Reader, state: AppStateOf) -> shapes.ReleaseState:
    """A pulled release; its job says where the pull stands, or why it was not taken."""
    return _shape(state, releases.listed(releases.here(state, name)))


@router.get("/releases/pulled/{name}/questions")
def questions(name: str, caller: api.Reader, state: AppStateOf) -> list[shapes.Answered]:
    """What to ask of somebody's release before using it, with what was found: computed again from its files."""
    found = releases.answers(state, name)
    return [shapes.Answered(question=one, answers=lines, reassuring=right) for one, lines, right in found]


@router.post("/releases/pulled/{name}/regenerate/preview")
def preview(name: str, wanted: shapes.PulledAgain, caller: api.Runner, state: AppStateOf) -> shapes.AgainPreview:
    """What making a pulled release again would ask of whom, in which words; nothing is begun."""
    try:
        starting.pulled_again(state, name, wanted.model_copy(update={"agreed": ""}), caller)
    except starting.Preview as shown:
        return shapes.AgainPreview(text=shown.text, agreed=shown.digest)
    raise AssertionError("an empty digest agrees to nothing")


@router.post("/releases/pulled/{name}/regenerate", status_code=202)
def regenerate(name: str, wanted: shapes.PulledAgain, caller: api.Runner, state: AppStateOf) -> shapes.RunState:
    """Start a run with a pulled release's prompts, variants, judges and settings, and a teacher of yours; `agreed` is
    that of a preview."""
    try:
        starting.pulled_again(state, name, wanted, caller)
    except starting.Preview as shown:
        raise Problem(
            409,
            f"Nothing was begun: `agreed` is not that of what would be asked now. Read it, and send its `agreed`: POST "
            f"/releases/pulled/{name}/regenerate/preview",
        ) from shown
    return state.run_state(wanted.name)


@router.post("/releases/pulled/{name}/remove", status_code=204)
def remove(name: str, caller: api.Runner, state: AppStateOf) -> None:
    """Delete a pulled release from here."""
    releases.remove(state, name)


@router.get("/releases/compare")
def compare(caller: api.Reader, state: AppStateOf, before: Key, after: Key) -> dict[str, Any]:
    """What differs between two releases, and which version that makes; one that is on the Hub takes the role run."""
    if before.startswith("hub:") or after.startswith("hub:"):
        check_role(caller, "run")
    return releases.compared(state, before, after)


def _shape(state: AppState, one: releases.Listed) -> shapes.ReleaseState:
    kind, _, name = one.key.partition(":")
    job = state.queue.latest(releases.run_of(name)) if kind == "pulled" else None
    shown = {field: getattr(one, field) for field in shapes.ReleaseState.model_fields if field != "job"}
    return shapes.ReleaseState(**shown, job=None if job is None else state.reader.job_state(job))
