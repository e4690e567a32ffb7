"""Several servers of one model: the least busy that answers is asked; one that is down is tried until it is back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai

# Seconds between two looks at a server that is down.
_RECHECK_S = 2.0


@dataclass(slots=True)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    busy: int = 0
    down_since: float | None = None
    check: asyncio.Task[None] | None = field(default=None, repr=False)


class Endpoints:
    """The servers of one teacher, from one event loop."""

    def __init__(self, clients: dict[str, openai.AsyncOpenAI]) -> None:
        self._servers = [_Server(url, client) for url, client in clients.items()]

    def __len__(self) -> int:
        return len(self._servers)

    @asynccontextmanager
    async def least_busy(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """The client to use for one attempt. A connection that fails takes its server out until it answers again."""
        server = min(self._servers, key=lambda one: (one.down_since is not None, one.down_since or 0, one.busy))
        server.busy += 1
        try:
            yield server.client
        except openai.APITimeoutError:
            raise
        except openai.APIConnectionError:
            # With a single server there is nothing to choose, and the retries wait for it.
            if len(self._servers) > 1 and server.down_since is None:
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
