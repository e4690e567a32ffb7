"""What every page needs: who looks at it, the form that was posted, and the page drawn."""

from dataclasses import dataclass
from secrets import compare_digest
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.http.access import form_of, session_of
from service.http.problems import Problem
from service.http.tokens import Caller, Unknown
from service.page.forms import Form
from service.page.rendering import render


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """An entry of the navigation; a module of `screens` that has one calls it PLACE."""

    order: int
    label: str
    path: str


def viewer(request: Request) -> Caller:
    """Whose page it is; whoever has no session is sent to log in.

    Raises:
        Problem: 401.
    """
    try:
        return session_of(request)
    except Unknown as error:
        raise Problem(401, str(error)) from error


Viewer = Annotated[Caller, Depends(viewer)]


async def posted(request: Request, caller: Viewer) -> Form:
    """A form of this session.

    Raises:
        Problem: 400 or 403, it is none.
    """
    form = Form(await form_of(request))
    if not compare_digest(form.text("key").encode(), caller.form_key.encode()):
        raise Problem(403, "This form belongs to another session. Load the page again.")
    return form


Posted = Annotated[Form, Depends(posted)]


def page(template: str, caller: Caller, status: int = 200, /, **values: Any) -> Response:
    """A page, or a part of one, for a caller."""
    return HTMLResponse(render(template, caller=caller, key=caller.form_key, **values), status)


def to(path: str) -> Response:
    """Send the browser there after a form."""
    return RedirectResponse(path, 303)
