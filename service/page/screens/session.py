"""Logging in and out: /login, /logout."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.app_state import AppState
from service.http.access import AppStateOf, cookie_name, form_of, set_cookie
from service.http.tokens import Unknown
from service.page.forms import Form
from service.page.rendering import render
from service.page.screens.shared import Posted

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login(request: Request, state: AppStateOf, code: str | None = None) -> Response:
    """The form for a token; a one-time link logs in at once."""
    if code is None:
        return HTMLResponse(render("login", caller=None, key="", message=""))
    try:
        secret = state.tokens.use_code(code)
    except Unknown as error:
        request.app.state.refusals.count(request)
        return HTMLResponse(render("login", caller=None, key="", message=str(error)), 401)
    return _logged_in(state, secret)


@router.post("/login")
async def log_in(request: Request, state: AppStateOf) -> Response:
    """A session for a token."""
    form = Form(await form_of(request))
    try:
        secret = state.tokens.log_in(form.text("token").strip())
    except Unknown as error:
        request.app.state.refusals.count(request)
        return HTMLResponse(render("login", caller=None, key="", message=str(error)), 401)
    return _logged_in(state, secret)


def _logged_in(state: AppState, secret: str) -> Response:
    # A page of ours in between: with SameSite=Strict a browser that comes by a link from elsewhere, a terminal or a
    # mail, would not send the cookie along with a redirect.
    return HTMLResponse(render("welcome", caller=None, key=""), headers={"set-cookie": set_cookie(state, secret)})


@router.post("/logout")
async def log_out(request: Request, state: AppStateOf, form: Posted) -> Response:
    """End the session."""
    state.tokens.log_out(request.cookies[cookie_name(state)])
    return RedirectResponse("/login", 303, headers={"set-cookie": set_cookie(state, "")})
