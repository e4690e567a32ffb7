"""Connections that wait for a request: how long each may, how many there are, and how much of a body is held.

uvicorn has a time-out for a connection that is idle after an answer, a limit on the size of headers, and one on all
connections, beyond which it answers 503. It has none for headers and bodies that never end, and 20,000 of those would
keep everybody out. So here a connection has a deadline for its headers and one for its body, and one that takes no
answer is cut off; of too many that wait, the oldest makes room for the newest, so that whoever sends a request is
served. `service/running.py` hands this protocol to uvicorn.
"""

import asyncio
import resource
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.http.request_filters import IMPORTS

# Seconds from the connection, or from the last answer, to the end of a request's headers; and on to that of its body.
HEADERS_S, BODY_S = 10.0, 30.0
# For the archive of a run.
IMPORT_S = 900.0
# Seconds in which a client may take nothing of an answer that waits for it.
TAKING_S = 60.0
# Connections whose request is not complete.
MOST_WAITING = 1024
# All connections, listeners' among them: uvicorn answers 503 beyond.
MOST = 4096
# Bytes of a request's first line and headers.
LARGEST_HEAD = 32 * 1024
_FILES_BESIDE = 256


class Waiting:
    """Every connection whose request is not complete, in the order in which they began to wait."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._there: OrderedDict[BoundedProtocol, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._there)

    def add(self, protocol: "BoundedProtocol") -> None:
        """One more; where there are too many, the oldest is cut off."""
        self._there[protocol] = None
        self._there.move_to_end(protocol)
        while len(self._there) > self.most:
            oldest, _ = self._there.popitem(last=False)
            oldest.cut_off()

    def discard(self, protocol: "BoundedProtocol") -> None:
        """It waits no longer."""
        self._there.pop(protocol, None)


WAITING = Waiting(MOST_WAITING)


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with deadlines for what a client has to do."""

    _deadline: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _awaited = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its headers are awaited."""
        super().connection_made(transport)
        self._await("headers", HEADERS_S)

    def data_received(self, data: bytes) -> None:
        """Something came: a deadline is not moved by it, only by the end of what was awaited."""
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """An answer has gone: the next request is awaited."""
        super().on_response_complete()
        self._follow(anew=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._await("", 0)
        self._unset_taking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes an answer more slowly than it is made."""
        super().pause_writing()
        self._unset_taking()
        self._taking = self.loop.call_later(TAKING_S, self.cut_off)

    def resume_writing(self) -> None:
        """The client took what waited for it."""
        super().resume_writing()
        self._unset_taking()

    def cut_off(self) -> None:
        """End the connection at once; a client that sent half of its headers gets an answer first."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._awaited == "headers" and self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            with suppress(h11.LocalProtocolError):
                head = h11.Response(status_code=408, headers=[("connection", "close"), ("content-length", "0")])
                self.transport.write(self.conn.send(head) or b"")
            self.transport.close()
        else:
            self.transport.abort()

    def _follow(self, anew: bool = False) -> None:
        """Await what the client has to send next."""
        if self.transport.is_closing():
            self._await("", 0)
            return
        theirs = self.conn.their_state
        if theirs is h11.IDLE and (anew or self._awaited != "headers"):
            self._await("headers", HEADERS_S)
        elif theirs is h11.SEND_BODY and self._awaited != "body":
            self._await("body", IMPORT_S if self.scope and self.scope["path"] in IMPORTS else BODY_S)
        elif theirs not in (h11.IDLE, h11.SEND_BODY):
            self._await("", 0)

    def _await(self, what: str, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._awaited = what
        if what:
            self._deadline = self.loop.call_later(seconds, self.cut_off)
            WAITING.add(self)
        else:
            WAITING.discard(self)

    def _unset_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None


def limits() -> dict[str, Any]:
    """What uvicorn is to be started with. Raises this process's own limit on open files as far as it may.

    With fewer files than connections asyncio would stop to accept any for a second at a time, /health too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + MOST_WAITING + _FILES_BESIDE
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    free = max(soft - _FILES_BESIDE, 64)
    WAITING.most = min(MOST_WAITING, free // 2)
    return {
        "http": BoundedProtocol,
        "ws": "none",
        "limit_concurrency": min(MOST, free),
        "timeout_keep_alive": 5,
        "h11_max_incomplete_event_size": LARGEST_HEAD,
    }
