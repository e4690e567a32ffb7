"""What a request costs the client, by HTTP library: the choice behind `pipelines/teachers/transport.py`.

python -m benchmarks.transports [--requests N] [--rounds N]

Each client posts the same chat request to `benchmarks/latency_server.py`, which answers at once, 128 at a time, and
reads the body in pieces, as a stream must be; a process of its own each, in turn, so that neither imports nor load
favour one. Printed is the CPU time of the client's process for each request, its threads included, without the
process's start. Reads and writes nothing else; a library that is not installed is left out (pyreqwest is not among our
dependencies: pip install pyreqwest).
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.latency_server import prompt_text, serving
from pipelines.progress import plain_console

_AT_ONCE = 128
_NAMES = ("transport.py", "aiohttp", "pyreqwest", "httpx2")
_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer none"}

Ask = Callable[[bytes], Awaitable[bytes]]


def _body(number: int) -> bytes:
    messages = [{"role": "user", "content": prompt_text(number)}]
    return json.dumps({"model": "latency", "messages": messages, "temperature": 0.6}).encode()


async def _asked(name: str, url: str, requests: int) -> float:
    """CPU seconds that so many requests take."""
    address = f"{url}/chat/completions"
    if name == "transport.py":
        from pipelines.teachers.transport import Transport

        transport = Transport(url, "none", _AT_ONCE)

        async def seam(body: bytes) -> bytes:
            async with transport.post("chat/completions", json.loads(body)) as incoming:
                return b"".join([piece async for piece in incoming.pieces])

        return await _timed(seam, requests, transport.close)
    if name == "aiohttp":
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE))

        async def with_aiohttp(body: bytes) -> bytes:
            async with session.post(address, data=body, headers=_HEADERS) as answer:
                return b"".join([piece async for piece in answer.content.iter_any()])

        return await _timed(with_aiohttp, requests, session.close)
    if name == "pyreqwest":
        reqwest: Any = import_module("pyreqwest.client").ClientBuilder().max_connections(_AT_ONCE).build()

        async def with_pyreqwest(body: bytes) -> bytes:
            pieces: list[bytes] = []
            async with reqwest.post(address).headers(_HEADERS).body_bytes(body).build_streamed() as answer:
                while piece := await answer.body_reader.read_chunk():
                    pieces.append(bytes(piece))
            return b"".join(pieces)

        return await _timed(with_pyreqwest, requests, reqwest.close)
    import httpx2

    client: Any = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=_AT_ONCE))

    async def with_httpx2(body: bytes) -> bytes:
        async with client.stream("POST", address, content=body, headers=_HEADERS) as answer:
            return b"".join([piece async for piece in answer.aiter_bytes()])

    return await _timed(with_httpx2, requests, client.aclose)


async def _timed(ask: Ask, requests: int, close: Callable[[], Awaitable[None]]) -> float:
    bodies = iter([_body(number) for number in range(requests)])

    async def place() -> None:
        for body in bodies:
            answer = json.loads(await ask(body))
            if not answer["choices"][0]["message"]["content"]:
                raise RuntimeError("an answer is empty")

    await ask(_body(0))
    started = time.process_time()
    await asyncio.gather(*(place() for _ in range(_AT_ONCE)))
    taken = time.process_time() - started
    await close()
    return taken


def main(
    requests: Annotated[int, typer.Option(help="Requests of each client in a round.")] = 3000,
    rounds: Annotated[int, typer.Option(help="Rounds; in each every client has its turn.")] = 3,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    url: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure each client's CPU time a request, and close with one line of JSON."""
    if child:
        print(asyncio.run(_asked(child, url, requests)))
        return
    names = [name for name in _NAMES if name == "transport.py" or find_spec(name)]
    taken: dict[str, list[float]] = {name: [] for name in names}
    with serving() as server:
        for _ in range(rounds):
            for name in names:
                command = [sys.executable, "-m", "benchmarks.transports", "--child", name, "--url", server.url]
                server.reset(0.0)
                done = subprocess.run(
                    [*command, "--requests", str(requests)], capture_output=True, text=True, check=True
                )
                taken[name].append(1000 * float(done.stdout) / requests)
    table = Table("client", "CPU ms a request, by round")
    for name, figures in taken.items():
        table.add_row(name, ", ".join(f"{one:.3f}" for one in figures))
    plain_console(width=100).print(table)
    least = {name: round(min(figures), 3) for name, figures in taken.items()}
    print(json.dumps({"benchmark": "transports", "cpu_ms": least, "load_average": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    typer.run(main)
