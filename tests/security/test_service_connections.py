"""Connections that never finish what they began: the service goes on to answer, and cuts them off."""

import asyncio
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from service.app import guarded
from service.app_state import ServeSettings, opened
from service.http import connections
from tests.service.conftest import Service

PATIENCE_S = 300
HALF = {
    "nothing": b"",
    "half a line": b"GET /heal",
    "half of the headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    "half a body": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\ntoken=",
    "half a chunk": b"POST /runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
}


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path / "runs", "--rate", "100000")
    yield running
    running.stop()


def test_twice_as_many_half_open_requests_as_may_wait_keep_nobody_out(crowded: Service) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 2 * connections.MOST_WAITING
    if count > hard - 500:
        pytest.skip("this process may not hold that many sockets")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 400), hard))
    address = httpx.URL(crowded.url)
    pieces = list(HALF.values())
    try:
        with ExitStack() as stack:
            held = []
            for number in range(count):
                connection = stack.enter_context(socket.create_connection((address.host, address.port), PATIENCE_S))
                connection.sendall(pieces[number % len(pieces)])
                held.append(connection)
                if number % 250 == 249:
                    assert httpx.get(f"{crowded.url}/health", timeout=PATIENCE_S).json()["status"] == "ok"
            # The oldest were cut off as the newest came: long before any deadline.
            waiting = select.poll()
            for connection in held[: count - connections.MOST_WAITING]:
                waiting.register(connection, select.POLLIN)
            ended: set[int] = set()
            until = time.monotonic() + PATIENCE_S
            while len(ended) < count - connections.MOST_WAITING:
                assert time.monotonic() < until, len(ended)
                for number, _ in waiting.poll(1000):
                    ended.add(number)
                    waiting.unregister(number)
            assert crowded.get("/runs") == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def serving(tmp_path: Path) -> Iterator[int]:
    """The service in this process, so that its deadlines can be shortened; the port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        app = guarded(opened(ServeSettings(tmp_path / "runs", port=port), {}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", **connections.limits()))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


@pytest.mark.parametrize("began", HALF)
def test_what_is_never_finished_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, began: str) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 0.5)
    monkeypatch.setattr(connections, "BODY_S", 0.5)
    with serving(tmp_path) as port, socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(HALF[began])
        answer = b""
        try:
            while piece := connection.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass
        assert (
            answer == b""
            if "half a" not in began and "half of" not in began
            else answer.startswith((b"HTTP/1.1 4", b""))
        )
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_S).status_code == 200


def test_a_byte_now_and_then_moves_no_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    with serving(tmp_path) as port, socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.setblocking(False)
        until = time.monotonic() + PATIENCE_S
        connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        while True:
            assert time.monotonic() < until, "it was never cut off"
            try:
                connection.sendall(b"x")
                answer = connection.recv(4096)
            except BlockingIOError:
                time.sleep(0.1)
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
            if not answer or answer.startswith(b"HTTP/1.1 408"):
                break


def test_who_takes_no_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connections, "TAKING_S", 0.5)
    with serving(tmp_path) as port, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", port))
        asked = b"GET /static/htmx-2.0.11.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            for _ in range(1_000_000):
                connection.sendall(asked)
