"""What every request passes before anything else looks at it: host name, size, rate; and the headers of every answer.

A request that calls the service by another name than its own is refused, whatever its address: that is how a page
elsewhere would reach a service on this machine (DNS rebinding).
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app_state import ServeSettings
from service.http.problems import Problem, ProblemResponse

LARGEST_BODY = 256 * 1024
# Where an archive of a run may be sent, and its bytes; the command line imports larger ones.
IMPORTS, LARGEST_IMPORT = ("/runs/import", "/ui/import"), 2**30
# Of all bodies that are being read.
_MOST_HELD = 32 * 1024 * 1024
_BURST = 4
# Callers that are remembered; the one that was quiet for longest is forgotten first.
_MOST_CALLERS = 10_000
# Refused tokens and links of one address, a second and at once.
_REFUSALS_PER_S, _REFUSALS_AT_ONCE = 0.5, 20
# The only scripts and styles are files of ours; nothing is loaded from elsewhere, framed, or sent elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    # With no-referrer a browser would not say where a form comes from, and access.py asks for that.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d+)?")


class Buckets:
    """Token buckets by key: `rate` a second for long, `most` at once."""

    def __init__(self, rate: float, most: float) -> None:
        self._rate, self._most = rate, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str, taken: float = 1.0) -> float:
        """Take from a bucket; 0, or the seconds until there is enough, and then nothing is taken."""
        now = time.monotonic()
        left, then = self._left.pop(key, (self._most, now))
        left = min(self._most, left + (now - then) * self._rate)
        short = taken - left
        self._left[key] = (left if short > 0 else left - taken, now)
        if len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        return max(short, 0.0) / self._rate


def too_many(wait_s: float) -> Problem:
    """The answer to who asks too often."""
    seconds = max(1, round(wait_s))
    return Problem(429, f"Too many requests. Come again in {seconds} s.", {"retry-after": str(seconds)})


class Refusals:
    """Rate limit on refused credentials, by address."""

    def __init__(self) -> None:
        self._buckets = Buckets(_REFUSALS_PER_S, _REFUSALS_AT_ONCE)

    def count(self, request: Request) -> None:
        """One more.

        Raises:
            Problem: 429, too many from there.
        """
        wait_s = self._buckets.wait_s(request.client.host if request.client else "")
        if wait_s:
            raise too_many(wait_s)


class RequestFilters:
    """The outermost layer of the service."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._names = app, settings.names
        self._buckets = Buckets(settings.rate_per_s, _BURST * settings.rate_per_s)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", POLICY)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        problem = self._problem(scope)
        if problem is not None:
            await ProblemResponse(problem)(scope, receive, send_with_headers)
            return
        seen = 0

        async def receive_some() -> Message:
            nonlocal seen
            message = await receive()
            came = len(message.get("body", b""))
            seen += came
            if scope["path"] in IMPORTS:  # goes to a file as it comes
                if seen > LARGEST_IMPORT:
                    raise HTTPException(413, _too_large(LARGEST_IMPORT).detail)
                return message
            self._held += came
            # Of the kind that FastAPI lets through while it reads a body.
            if seen > LARGEST_BODY:
                raise HTTPException(413, _too_large(LARGEST_BODY).detail)
            if came and self._held > _MOST_HELD:
                raise HTTPException(503, "Too many requests are being read. Send this one again.", {"retry-after": "1"})
            return message

        try:
            await self._app(scope, receive_some, send_with_headers)
        finally:
            self._held -= 0 if scope["path"] in IMPORTS else seen

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        name = _name_in(headers.get("host", ""))
        if name not in self._names:
            return Problem(421, f"This service is not called '{name[:200]}'. Its names are set by --hostname.")
        length = headers.get("content-length", "0")
        most = LARGEST_IMPORT if scope["path"] in IMPORTS else LARGEST_BODY
        if not re.fullmatch("[0-9]{1,18}", length) or int(length) > most:
            return _too_large(most)
        wait_s = self._buckets.wait_s(_who(scope, headers))
        return too_many(wait_s) if wait_s else None


def _too_large(most: int) -> Problem:
    return Problem(413, f"A request may hold {most // 1024} KiB at most.")


def _name_in(host: str) -> str:
    """The name in a Host header, without its port; "" where it is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found[1].strip("[]").lower()


def _who(scope: Scope, headers: Headers) -> str:
    """Whose bucket: that of the credentials that came along, else that of the address."""
    held: Iterable[str] = (headers.get("authorization", ""), headers.get("cookie", ""))
    if any(held):
        return hashlib.sha256("\n".join(held).encode("utf-8", "surrogatepass")).hexdigest()
    return scope["client"][0] if scope.get("client") else ""
