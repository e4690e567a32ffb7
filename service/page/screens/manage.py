"""A run renamed, exported, deleted: /ui/runs/RUN/manage; and one imported: /ui/import, from the list of runs."""

from secrets import compare_digest
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from service.http.access import AppStateOf, check_origin, check_role
from service.http.problems import Problem
from service.page.screens.shared import Posted, Viewer, page, to
from service.run import api, run_keeping

router = APIRouter(include_in_schema=False)


@router.get("/ui/runs/{name}/manage")
def manage(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """What a run holds, and the forms."""
    run = state.run_state(name)
    return page("manage", caller, tab="manage", run=run, name=name, contents=run_keeping.contents(state, name))


@router.post("/ui/runs/{name}/rename")
def rename(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Another name."""
    check_role(caller, "run")
    wanted = form.text("name").strip()
    run_keeping.rename(state, name, wanted)
    return to(f"/ui/runs/{quote(wanted)}")


@router.post("/ui/runs/{name}/delete")
def delete(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """The end of a run, after its name was typed."""
    check_role(caller, "publish")
    run_keeping.remove(state, name, form.text("confirm").strip())
    return to("/")


@router.post("/ui/import")
async def import_run(caller: Viewer, state: AppStateOf, request: Request) -> Response:
    """An archive as the body, sent by rows.js with the form's key in a header; answers with the new run's page."""
    check_origin(request)
    if not compare_digest(request.headers.get("x-form-key", "").encode(), caller.form_key.encode()):
        raise Problem(403, "This form belongs to another session. Load the page again.")
    check_role(caller, "run")
    made = await api.taken_in(request, state, "")
    return PlainTextResponse(f"/ui/runs/{quote(made.name)}")
