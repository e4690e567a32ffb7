"""Sending a request to a server and reading its answer piece by piece, with bounds on everything: the one seam to HTTP.

Knows nothing of chats. Redirects are not followed; a proxy is taken from the environment; every failure is a
`ConnectionFailed`. Deadlines are the caller's.
"""

import asyncio
import functools
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from pipelines.errors import one_line, without_secrets
from pipelines.teachers.replies import Kind, ReplyFailure, lowered

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

# No answer of a model comes near it; what sends more is broken, or means ill.
MOST_BYTES = 64 * 1024**2
_CONNECT_S = 30.0
# Idle connections are given up before most servers and balancers close them (60 s, 75 s).
_KEEP_ALIVE_S = 30.0


class ConnectionFailed(ReplyFailure):
    """No whole answer came over the wire. `unreachable`: not even a connection."""

    def __init__(self, message: str, unreachable: bool = False, kind: Kind = "retry") -> None:
        super().__init__(kind, message)
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class Incoming:
    """An answer whose body is still on its way; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


class Transport:
    """The connections to one base URL; use from one event loop at a time.

    Args:
        base_url: Where the API begins, `https://host/v1`; a query is kept.
        key: Sent as a bearer token.
        connections: Most that are open at once.
    """

    def __init__(self, base_url: str, key: str, connections: int) -> None:
        self.base_url = base_url
        self._key, self._connections = key, connections
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._targets: dict[str, tuple[URL, str | None]] = {}

    def post(self, path: str, document: Mapping[str, Any]) -> AbstractAsyncContextManager[Incoming]:
        """Send a document as JSON; the answer can be read while the block runs.

        Raises:
            ConnectionFailed: no connection, or it broke; inside the block as well.
        """
        return self._answer("POST", path, json.dumps(document).encode())

    def get(self, path: str) -> AbstractAsyncContextManager[Incoming]:
        """Ask for a page; as `post`."""
        return self._answer("GET", path, None)

    async def alive(self, path: str) -> bool:
        """Whether anything at all is answered to a GET."""
        try:
            async with self.get(path):
                return True
        except ConnectionFailed:
            return False

    @asynccontextmanager
    async def _answer(self, method: str, path: str, data: bytes | None) -> AsyncIterator[Incoming]:
        import aiohttp
        from aiohttp.http_exceptions import HttpProcessingError

        try:
            session = self._open()
            url, proxy = self._target(path)
            # As a payload of its own, aiohttp need not find out what it is.
            body = None if data is None else aiohttp.BytesPayload(data, content_type="application/json")
            asked = session.request(method, url, data=body, allow_redirects=False, proxy=proxy)
            async with asked as answer:
                yield Incoming(answer.status, lowered(iter(answer.headers.items())), _pieces(answer))
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the caller's deadline
            raise self._failure(error) from error

    def _target(self, path: str) -> "tuple[URL, str | None]":
        """A page's address, and the proxy on the way to it; as the environment has it when the first request is
        made."""
        if path not in self._targets:
            from yarl import URL

            base = URL(self.base_url)
            url = base.joinpath(*path.split("/")).with_query(base.query)
            self._targets[path] = url, _proxy(url)
        return self._targets[path]

    def _failure(self, error: Exception) -> ConnectionFailed:
        import aiohttp
        from aiohttp.http_exceptions import HttpProcessingError

        text = str(getattr(error, "message", "") or error) or type(error).__name__
        words = one_line(without_secrets(text, self._key))
        match error:
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
                return ConnectionFailed(f"no secure connection: {words}", unreachable=True, kind="fatal")
            case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
                return ConnectionFailed(f"{self.base_url} is no address: {words}", unreachable=True, kind="fatal")
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                return ConnectionFailed(f"no connection: {words}", unreachable=True)
            case aiohttp.ClientHttpProxyError():
                return ConnectionFailed(f"the proxy refuses: {error.status} {words}", unreachable=True)
            case aiohttp.ClientResponseError() | HttpProcessingError():
                return ConnectionFailed(f"broken reply: not HTTP: {words}")
            case aiohttp.ClientError() | OSError():
                return ConnectionFailed(f"the connection was cut: {words}")
        # aiohttp's word for a header that cannot be sent, which would repeat the key.
        return ConnectionFailed("the request cannot be sent: look at the key and the base_url", kind="fatal")

    def _open(self) -> "aiohttp.ClientSession":
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            import aiohttp
            from yarl import URL

            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEP_ALIVE_S, ssl=_tls())
            bounds = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
            headers = {"User-Agent": "saferthoughts"}
            # A name and password in the address take the bearer token's place.
            if URL(self.base_url).user is None:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=bounds, cookie_jar=aiohttp.DummyCookieJar(), headers=headers
            )
            self._loop = loop
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _pieces(answer: "aiohttp.ClientResponse") -> AsyncIterator[bytes]:
    read = 0
    async for piece in answer.content.iter_any():
        read += len(piece)
        if read > MOST_BYTES:
            answer.close()
            raise ConnectionFailed(f"broken reply: longer than {MOST_BYTES // 1024**2} MiB")
        yield piece


@functools.cache
def _tls() -> ssl.SSLContext:
    """The machine's certificates, and certifi's for a machine (a small container) that has none."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _proxy(url: "URL") -> str | None:
    """The proxy that the environment names for an address; never one for this machine itself."""
    if url.host is None or is_loopback(url.host) or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and proxy.lower().startswith("socks"):
        raise ConnectionFailed("the environment names a SOCKS proxy; only HTTP proxies can be used", kind="fatal")
    return proxy


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine."""
    return host in ("localhost", "::1") or (host or "").startswith("127.")
