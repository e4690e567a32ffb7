"""The page: what a browser sees of the service, drawn here and kept fresh by htmx.

Every module of `screens/` adds its paths by itself, and its place in the navigation if it has one. Forms go to POST
paths and need the session's key; every one works without a script as well.
"""

import importlib
import pkgutil

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from service.http import problems
from service.http.access import session_of
from service.http.problems import problem_of
from service.http.tokens import Caller, Unknown
from service.page import screens
from service.page.rendering import render, set_places
from service.page.screens.shared import to

router = APIRouter(include_in_schema=False)


async def answer_with_problem(request: Request, error: Exception) -> Response:
    """An error as the page shows it, or as a problem document where a program asked."""
    path = request.url.path
    if not (path in ("/", "/docs", "/login", "/logout") or path.startswith("/ui/")):
        return await problems.answer_with_problem(request, error)
    found = problem_of(error)
    part = request.headers.get("hx-request") == "true"
    if found.status == 401 and not part:
        return to("/login")
    title = problems.title_of(found.status)
    try:
        caller: Caller | None = session_of(request)
    except Unknown:
        caller = None
    name = "problem_part" if part else "problem"
    page = render(name, title=title, detail=found.detail, caller=caller, key=caller.form_key if caller else "")
    # htmx shows what comes with 200 only.
    return HTMLResponse(page, 200 if part else found.status, headers=found.headers)


def _gather() -> None:
    modules = [
        importlib.import_module(f"{screens.__name__}.{found.name}") for found in pkgutil.iter_modules(screens.__path__)
    ]
    for module in modules:
        if hasattr(module, "router"):
            router.include_router(module.router)
    set_places(sorted(module.PLACE for module in modules if hasattr(module, "PLACE")))


_gather()
