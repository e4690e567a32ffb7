"""The form of a new run, with its estimate: /ui/new, /ui/estimate."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from pipelines.errors import UserError
from service import starting, teachers
from service.access import AppStateOf, check_role
from service.app_state import AppState
from service.forms import Form, new_run_in
from service.problems import Problem
from service.screens.shared import Place, Posted, Viewer, page, to

router = APIRouter(include_in_schema=False)
PLACE = Place(20, "New run", "/ui/new")


@router.get("/ui/new")
def new_run(caller: Viewer, state: AppStateOf) -> Response:
    """The form of a new run."""
    return page("new", caller, **_choices(state), form=Form({}), message="")


@router.post("/ui/new")
def start_run(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Start a run, or show the form again with what does not fit."""
    check_role(caller, "run")
    try:
        wanted = new_run_in(form)
        starting.start(state, wanted, caller)
    except (UserError, Problem) as error:
        return page("new", caller, 422, **_choices(state), form=form, message=str(error))
    return to(f"/ui/runs/{quote(wanted.name)}")


@router.post("/ui/estimate")
def estimate(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """What the run of a form would take."""
    try:
        config = new_run_in(form, named=False).config
        found, warnings = starting.estimate(state, config), starting.warnings(state, config)
    except UserError as error:
        return page("estimate", caller, message=str(error), wrong=True, warnings=[])
    return page("estimate", caller, message=found.message(), wrong=False, warnings=warnings)


def _choices(state: AppState) -> dict[str, Any]:
    from pipelines.prompts.variant import load_variants
    from pipelines.settings.config import RunConfig
    from pipelines.settings.judge import load_judges

    return {
        "sets": list(state.prompt_sets()),
        "variants": {name: entry.description for name, entry in load_variants().items()},
        "teachers": teachers.listed(state),
        "judges": {name: starting.LOOKS_FOR[entry.kind] for name, entry in load_judges().items()},
        "default": RunConfig(),
    }
