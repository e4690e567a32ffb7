"""Several servers of one model: the least busy that answers is asked; one that is down is tried until it is back."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.teachers.transport import ConnectionFailed, Transport

# Seconds between two looks at a server that is down, and for how long it may take to answer one.
_RECHECK_S = 2.0
_LOOK_S = 5.0


@dataclass(slots=True)
class _Server:
    transport: Transport
    busy: int = 0
    turn: int = 0
    down: bool = False
    check: asyncio.Task[None] | None = field(default=None, repr=False)


class Endpoints:
    """The servers of one teacher, from one event loop."""

    def __init__(self, transports: Iterable[Transport]) -> None:
        self._servers = [_Server(transport) for transport in transports]
        self._turns = 0

    @property
    def choice(self) -> bool:
        """Whether one server is up and another down: a failed connection may then be repeated elsewhere at once."""
        return len({server.down for server in self._servers}) == 2

    @contextmanager
    def least_busy(self) -> Iterator[Transport]:
        """The server to use for one attempt. A connection that fails takes it out until it answers again."""
        server = min(self._servers, key=lambda one: (one.down, one.busy, one.turn))
        self._turns += 1
        server.busy, server.turn = server.busy + 1, self._turns
        try:
            yield server.transport
        except ConnectionFailed as error:
            # A server that cannot be connected to is down; one that hangs or cuts a request may only be busy. With a
            # single server there is nothing to choose, and the retries wait for it.
            if error.unreachable and len(self._servers) > 1 and not server.down:
                server.down = True
                server.check = asyncio.create_task(self._until_back(server))
            raise
        finally:
            server.busy -= 1

    async def _until_back(self, server: _Server) -> None:
        while server.down:
            await asyncio.sleep(_RECHECK_S)
            try:
                async with asyncio.timeout(_LOOK_S):
                    server.down = not await server.transport.alive("models")
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Close every connection."""
        for server in self._servers:
            if server.check is not None:
                server.check.cancel()
            await server.transport.close()
