"""The form of a new run, with its estimate and prompt sets to upload: /ui/new, /ui/estimate, /ui/prompts."""

from typing import Any, get_args
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from starlette.responses import Response

from pipelines.errors import UserError
from service.app_state import UPLOADED, AppState
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.http.tokens import Caller
from service.page.forms import Form, new_run_in
from service.page.screens.shared import Place, Posted, Viewer, page, to
from service.run import starting, teachers
from service.run.presets import PRESETS, begun

router = APIRouter(include_in_schema=False)
PLACE = Place(20, "New run", "/ui/new")


@router.get("/ui/new")
def new_run(
    caller: Viewer, state: AppStateOf, preset: str | None = None, source: str | None = None, kind: str | None = None
) -> Response:
    """The form of a new run, filled in."""
    form, message = begun(state, preset, source, kind)
    return page("new", caller, **_choices(state), form=form, message=message, open=False, preset=preset)


@router.get("/ui/new/counts")
def counts(caller: Viewer, state: AppStateOf, source: str | None = None, kind: str | None = None) -> Response:
    """How many prompts a set has, as the form's fields."""
    form, message = begun(state, None, source, kind)
    return page("counts", caller, form=form, message=message)


@router.post("/ui/new")
def start_run(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Start a run, or show the form again with what does not fit."""
    check_role(caller, "run")
    try:
        wanted = new_run_in(form)
        starting.start(state, wanted, caller)
    except (UserError, Problem) as error:
        return _again(caller, state, form, str(error))
    return to(f"/ui/runs/{quote(wanted.name)}")


def _again(caller: Caller, state: AppState, form: Form, message: str) -> Response:
    return page("new", caller, 422, **_choices(state), form=form, message=message, open=True, preset=None)


@router.post("/ui/prompts")
def upload(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Keep a prompt set beside those that the service was started with, if every row of it can be used."""
    check_role(caller, "run")
    name, kind = form.text("file.name"), form.text("kind")
    try:
        state.add_prompts(name, form.text("file"), kind or None)
    except UserError as error:
        return _again(caller, state, begun(state, None, None, None)[0], str(error))
    return to(f"/ui/new?{urlencode({'preset': 'mine', 'source': name, 'kind': kind})}")


@router.post("/ui/estimate")
def estimate(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """What the run of a form would take."""
    if not form.text("reasoning"):
        return page("estimate", caller, message="Counted once a reasoning teacher is chosen.", wrong=False, warnings=[])
    try:
        config = new_run_in(form, named=False).config
        found, warnings = starting.estimate(state, config), starting.warnings(state, config)
    except UserError as error:
        return page("estimate", caller, message=str(error), wrong=True, warnings=[])
    return page("estimate", caller, message=found.message(), wrong=False, warnings=warnings)


def _choices(state: AppState) -> dict[str, Any]:
    from pipelines.prompts.prompt_sets import KINDS
    from pipelines.prompts.variant import load_variants
    from pipelines.settings.config import Repairing
    from pipelines.settings.judge import load_judges

    return {
        "sets": list(state.prompt_sets()),
        "variants": {name: entry.description for name, entry in load_variants().items()},
        "teachers": teachers.listed(state),
        "judges": {name: starting.LOOKS_FOR[entry.kind] for name, entry in load_judges().items()},
        "kinds": KINDS,
        "strategies": get_args(Repairing.model_fields["strategy"].annotation),
        "presets": PRESETS,
        "uploads": UPLOADED if state.settings.prompts is not None else (),
    }
