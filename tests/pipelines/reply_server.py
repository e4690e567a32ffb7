"""A server that answers with raw bytes, over a socket: in an event loop, or in a thread beside a command."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from pipelines.teachers.first_question import MESSAGES
from tests.pipelines.reply_bodies import TEXT, THOUGHT, Kind, good, http

# What a run asks first, answered by itself so that the tests of what follows need not.
_FIRST = good({"role": "assistant", "content": TEXT, "reasoning_content": THOUGHT})


class Server:
    """Answers each request with the bytes of the kind that `choose` takes for it, a run's first question by itself.

    With `first_too`, `choose` answers that as well. `models` is what it lists; None for no list.
    """

    def __init__(self, choose: Callable[[dict[str, Any]], Kind], first_too: bool, models: Any = None) -> None:
        self.choose, self.first_too, self.models = choose, first_too, models
        self.listed = 0
        self.first = 0
        self.url = ""
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("get"):
                self.listed += 1
                listed = json.dumps({"object": "list", "data": self.models}).encode()
                writer.write(http(b"", 404) if self.models is None else http(listed))
                return
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
            body = json.loads(await reader.readexactly(length))
            if not self.first_too and body["messages"] == list(MESSAGES):
                self.first += 1
                writer.write(_FIRST)
                return
            self.bodies.append(body)
            kind = self.choose(body)
            turn = self.asked[body["model"]]
            self.asked[body["model"]] += 1
            stalls = len(kind.plays) > 1 and kind.plays[-1] is None
            play = kind.plays[0] if stalls else kind.plays[min(turn, len(kind.plays) - 1)]
            if play is not None:
                writer.write(play)
                await writer.drain()
            if play is None or stalls:
                await reader.read()  # until the client has given up
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    choose: Callable[[dict[str, Any]], Kind], first_too: bool = True, models: Any = None
) -> AsyncIterator[Server]:
    """Serve in this event loop."""
    server = Server(choose, first_too, models)
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()


@contextmanager
def serving_beside(
    choose: Callable[[dict[str, Any]], Kind], first_too: bool = False, models: Any = None
) -> Iterator[Server]:
    """Serve in a thread while the block runs."""
    ready = threading.Event()
    found: list[Server] = []
    loop = asyncio.new_event_loop()
    leave = asyncio.Event()

    async def serve() -> None:
        async with serving(choose, first_too, models) as server:
            found.append(server)
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()
