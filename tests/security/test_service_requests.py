"""Hostile requests, sent as they are: every one ends in an answer of 2xx, 3xx or 4xx, and nothing else changes."""

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.http.connections import LARGEST_HEAD
from tests.security.service_requests import RAW, requests
from tests.service.conftest import Service

PATIENCE_S = 300
FEWEST = 338 + 20


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one run, whose jobs never start."""
    running = Service(tmp_path_factory.mktemp("attacked") / "runs", "--jobs", "0", "--rate", "100000")
    config = {"prompts": {"harmful": 2, "benign": 1}, "roles": {"reasoning": "rehearsal"}}
    assert running.post("/runs", {"name": "small", "config": config}).status_code == 202
    yield running
    running.stop()


def head_of(found: bytes) -> bytes:
    return found.partition(b"\r\n\r\n")[0].lower()


def answer(service: Service, request: bytes) -> bytes:
    """What comes back until the connection ends or the head of an answer is there; nothing more is sent."""
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port), PATIENCE_S) as connection:
        found = b""
        # Reset where it was refused before it was read to its end; the answer may be lost with what was not read.
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
            while b"\r\n\r\n" not in found and (piece := connection.recv(65536)):
                found += piece
        return found


def test_every_request_is_answered_and_none_breaks_the_service(attacked: Service) -> None:
    made = list(requests(attacked.secrets["read"], attacked.secrets["publish"]))
    assert len({name for name, _ in made}) == len(made) >= FEWEST
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: answer(attacked, one[1]), made))
    statuses = [found[9:12].decode("latin-1") for found in answers]
    wrong = [
        (name, found[:200])
        for (name, request), found, status in zip(made, answers, statuses, strict=True)
        if not status.startswith(("1", "2", "3", "4")) and (found or len(request) < LARGEST_HEAD)
    ]
    assert wrong == [], (len(made), Counter(statuses))
    assert [name for (name, _), found in zip(made, answers, strict=True) if b"\nx-injected" in head_of(found)] == []
    log = (attacked.runs.parent / "service.txt").read_text()
    assert "Traceback" not in log, log[-4000:]
    assert httpx.get(f"{attacked.url}/health", timeout=PATIENCE_S).status_code == 200
    made_runs = {path.name for path in Path(attacked.runs).iterdir() if not path.name.startswith(".")}
    assert made_runs <= {"small", "x"}, made_runs


def test_twenty_of_them_are_no_ordinary_requests_at_all() -> None:
    assert len(RAW) >= 20
