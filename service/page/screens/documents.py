"""What is read: a run's report and log, /docs of the API."""

from hashlib import sha256

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.access import AppStateOf
from service.http.description import description_of
from service.page.screens.shared import Place, Viewer, page

router = APIRouter(include_in_schema=False)
PLACE = Place(120, "API", "/docs")


@router.get("/ui/runs/{name}/report")
def report(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """The run's report, framed."""
    state.run(name)
    return page("report", caller, tab="report", name=name)


@router.get("/ui/runs/{name}/log")
def log(name: str, caller: Viewer, state: AppStateOf, seen: str = "") -> Response:
    """What the run's jobs printed; with `seen`, the part that moves, where there is more."""
    from service.jobs.jobs import log_tail

    text = log_tail(state.run(name).path)
    mark = sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    if seen == mark:
        return Response(status_code=204)
    return page("log_part" if seen else "log", caller, tab="log", name=name, text=text, mark=mark)


@router.get("/docs")
def docs(caller: Viewer, request: Request) -> Response:
    """The API in words, from its own description."""
    return page("docs", caller, api=description_of(request.app))
