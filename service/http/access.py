"""Who a request comes from and whether they may: a bearer token, or the page's session.

A session counts for reading, and for the page's own forms; what changes something over the API needs a token. So no
other site can have a browser change anything: the cookie is SameSite=Strict, a form carries a key that only pages of
this session hold, and its Origin must be this service.
"""

from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from service.app_state import AppState
from service.http.problems import Problem
from service.http.request_filters import LARGEST_BODY
from service.http.tokens import SESSION_DAYS, Caller, Unknown

_MOST_FIELDS = 200
_SAFE = ("GET", "HEAD")
_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token made by `saferthoughts serve token add NAME --role ROLE`",
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def app_state_of(request: Request) -> AppState:
    """The service's parts."""
    state: AppState = request.app.state.parts
    return state


AppStateOf = Annotated[AppState, Depends(app_state_of)]


def cookie_name(state: AppState) -> str:
    """What the session's cookie is called; browsers take a __Host- cookie over TLS only, and from no other name.

    Cookies do not know ports: with the port in its name, two services on one machine leave each other's alone.
    """
    return f"{'__Host-' if state.settings.secure else ''}saferthoughts-{state.settings.port}"


def set_cookie(state: AppState, secret: str) -> str:
    """A Set-Cookie header for a session; with "" one that takes the cookie away."""
    age = int(SESSION_DAYS * 86_400) if secret else 0
    secure = "; Secure" if state.settings.secure else ""
    return f"{cookie_name(state)}={secret}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"


def session_of(request: Request) -> Caller:
    """Whose session a request carries.

    Raises:
        Unknown: it carries none, or one that is over.
    """
    state = app_state_of(request)
    secret = request.cookies.get(cookie_name(state))
    if not secret:
        raise Unknown("Log in first.")
    return state.tokens.session(secret)


def caller_of(request: Request, bearer: Bearer) -> Caller:
    """Who asks.

    Raises:
        Problem: 401, nobody that is known.
    """
    try:
        if bearer is not None:
            return app_state_of(request).tokens.caller(bearer.credentials)
        caller = session_of(request)
    except Unknown as error:
        # Wrong ones are counted; coming without any is no attempt at anything.
        if bearer is not None:
            request.app.state.refusals.count(request)
        message = str(error) if bearer is not None else "A token is needed: Authorization: Bearer TOKEN. " + str(error)
        raise Problem(401, message, {"www-authenticate": "Bearer"}) from error
    if request.method not in _SAFE:
        raise Problem(
            401, "What changes something takes a token, not the page's session.", {"www-authenticate": "Bearer"}
        )
    return caller


def needs(role: str) -> object:
    """A dependency that lets in who has at least this role."""

    def allowed(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        check_role(caller, role)
        return caller

    return Depends(allowed)


def check_role(caller: Caller, role: str) -> None:
    """Let who has at least this role go on.

    Raises:
        Problem: 403.
    """
    if not caller.may(role):
        raise Problem(403, f"'{caller.name}' has the role {caller.role}; this needs {role}.")


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form that was posted.

    Raises:
        Problem: 400, it is none; 403, it comes from another site.
    """
    check_origin(request)
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await _parts(request)
        text = (await request.body()).decode("utf-8")
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Problem(400, f"This is no form: {error}") from error
    except ClientDisconnect as error:
        raise Problem(400, "The form did not arrive as a whole.") from error


async def _parts(request: Request) -> dict[str, list[str]]:
    """The fields of a form with a file of text: its content, and beside it `NAME.name`, what the browser calls it."""
    fields: dict[str, list[str]] = {}
    async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=LARGEST_BODY) as form:
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value)
            else:
                fields[name] = [(await value.read()).decode("utf-8")]
                fields[f"{name}.name"] = [value.filename or ""]
    return fields


def check_origin(request: Request) -> None:
    """Refuse what another site sends.

    Raises:
        Problem: 403.
    """
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc.lower() != request.headers.get("host", "").lower():
        raise Problem(403, "This form was sent from another site, or by a browser that does not say from where.")
