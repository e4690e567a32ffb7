"""Several servers of one model: the least busy that answers is asked; one that is down is tried until it is back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai

# Seconds between two looks at a server that is down.
_RECHECK_S = 2.0
# By name: which HTTP library openai stands on changes. Over aiohttp, a refused connection is told as a time-out.
_UNREACHABLE = ("ConnectError", "ConnectTimeout")


@dataclass(slots=True)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    busy: int = 0
    turn: int = 0
    down_since: float | None = None
    check: asyncio.Task[None] | None = field(default=None, repr=False)


class Endpoints:
    """The servers of one teacher, from one event loop."""

    def __init__(self, clients: dict[str, openai.AsyncOpenAI]) -> None:
        self._servers = [_Server(url, client) for url, client in clients.items()]
        self._turns = 0

    @property
    def choice(self) -> bool:
        """Whether one server is up and another down: a failed connection may then be repeated elsewhere at once."""
        return len({server.down_since is None for server in self._servers}) == 2

    @asynccontextmanager
    async def least_busy(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """The client to use for one attempt. A connection that fails takes its server out until it answers again."""
        server = min(self._servers, key=lambda one: (one.down_since is not None, one.busy, one.turn))
        self._turns += 1
        server.busy, server.turn = server.busy + 1, self._turns
        try:
            yield server.client
        except openai.APIConnectionError as error:
            # A server that cannot be connected to is down; one that hangs or cuts a request may only be busy. With a
            # single server there is nothing to choose, and the retries wait for it.
            unreachable = type(error.__cause__).__name__ in _UNREACHABLE
            if unreachable and len(self._servers) > 1 and server.down_since is None:
                server.down_since = time.monotonic()
                server.check = asyncio.create_task(self._until_back(server))
            raise
        finally:
            server.busy -= 1

    async def _until_back(self, server: _Server) -> None:
        while server.down_since is not None:
            await asyncio.sleep(_RECHECK_S)
            try:
                await server.client.models.list(timeout=5)
                server.down_since = None
            except openai.APIStatusError:
                server.down_since = None  # it answers; what it answers is for the requests to find out
            except openai.APIConnectionError:
                continue

    async def close(self) -> None:
        """Close every client."""
        for server in self._servers:
            if server.check is not None:
                server.check.cancel()
            await server.client.close()
