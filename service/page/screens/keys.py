"""Which key each teacher, judge and server needs, and a form that gives one for this session: /ui/keys."""

from fastapi import APIRouter
from starlette.responses import Response

from pipelines.errors import UserError
from pipelines.settings.judge import load_judges
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.tokens import Caller
from service.jobs.keys import KeyState, key_states
from service.page.screens.shared import Place, Posted, Viewer, page, to

router = APIRouter(include_in_schema=False)
PLACE = Place(110, "Keys", "/ui/keys")


def states(state: AppState) -> list[KeyState]:
    """Every variable that the teachers, judges and servers of this service need."""
    return key_states(state.keys, state.known_teachers(), load_judges())


@router.get("/ui/keys")
def list_keys(caller: Viewer, state: AppStateOf) -> Response:
    """Which variable is set."""
    return _shown(caller, state)


def _shown(caller: Caller, state: AppState, message: str = "") -> Response:
    return page("keys", caller, 422 if message else 200, keys=states(state), message=message)


@router.post("/ui/keys")
def change_key(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Hold a key for this session, or forget it."""
    check_role(caller, "publish")
    variable = form.text("variable")
    if form.text("forget"):
        state.keys.forget(variable)
        return to("/ui/keys")
    try:
        known = {one.variable: one for one in states(state)}
        state.keys.put(variable, form.text("value"), known)
    except UserError as error:
        return _shown(caller, state, str(error))
    return to("/ui/keys")
