"""ASGI filters in front of argilla-server: the pages' Content-Security-Policy, and a limit on failed logins.

Its pages render record text as HTML, and ours shows adversarial text: only the scripts that the pages bring may run,
by their hashes, and nothing is fetched from elsewhere. Runs in the environment of argilla-server.
"""

import base64
import hashlib
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

LOGIN = "/api/v1/token"
ATTEMPTS, WITHIN_S = 5, 60.0


def policy(pages: Path) -> str:
    """The policy for the pages under a folder: their own inline scripts and nothing else."""
    hashes = set()
    for page in pages.rglob("*.html"):
        for body in re.findall(r"<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL):
            # The server fills this in before it serves the page.
            digest = hashlib.sha256(body.replace("@@baseUrl@@", "").encode()).digest()
            hashes.add(f"'sha256-{base64.b64encode(digest).decode()}'")
    return (
        f"default-src 'self'; script-src 'self' {' '.join(sorted(hashes))}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-src 'none'; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


class ServerFilters:
    """An ASGI app around the server's."""

    def __init__(self, app: App, pages: Path) -> None:
        self._app = app
        self._headers = [
            (b"content-security-policy", policy(pages).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        self._failed: deque[float] = deque()

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Pass a request on, with our headers on its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        login = scope["path"] == LOGIN and scope["method"] == "POST"
        if login and self._too_many():
            await _refuse(send, self._headers)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                if login and message["status"] in (401, 403):
                    self._failed.append(time.monotonic())
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._app(scope, receive, guarded)

    def _too_many(self) -> bool:
        """All of one address: on loopback whoever guesses comes from the same one."""
        while self._failed and self._failed[0] < time.monotonic() - WITHIN_S:
            self._failed.popleft()
        return len(self._failed) >= ATTEMPTS


async def _refuse(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    body = b'{"detail": "Too many failed logins. Wait a minute and try again."}'
    start = [*headers, (b"content-type", b"application/json"), (b"retry-after", str(int(WITHIN_S)).encode())]
    await send({"type": "http.response.start", "status": 429, "headers": start})
    await send({"type": "http.response.body", "body": body})
