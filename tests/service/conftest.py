"""The real service as a process over HTTP, with a finished run that it made itself."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.tokens import ROLES, Tokens
from service.store import Store
from tests.commands import Command

SMALL = {
    "prompts": {"harmful": 5, "benign": 2, "bare_share": 0.6},
    "variants": ["direct", "short", "nocot"],
    "seed": 3,
    "roles": {"reasoning": "rehearsal"},
}
RESPONSES = 5 * 3 + 2
_PATIENCE_S = 300


def typed(runs: Path, *words: str) -> list[str]:
    """What follows `saferthoughts`."""
    return ["--runs", str(runs), *words]


class Service:
    """`saferthoughts serve` on a free port, with a client for each role."""

    def __init__(self, runs: Path, *options: str, environment: Mapping[str, str] = os.environ) -> None:
        self.runs, self.options, self.environment = runs, options, environment
        self.start()
        tokens = Tokens(Store(runs))
        self.secrets = {role: tokens.add(role, role) for role in ROLES}

    def start(self) -> None:
        log = self.runs.parent / "service.txt"
        with log.open("wb") as output:
            words = typed(self.runs, "serve", "--port", "0", *self.options)
            self.process = Command(words, stdout=output, stderr=subprocess.STDOUT, env=self.environment)
        until = time.monotonic() + _PATIENCE_S
        while "login?code=" not in (output := log.read_text()):
            assert self.process.poll() is None, output
            assert time.monotonic() < until, output
            time.sleep(0.05)
        self.link = output.split()[-1]
        self.url = self.link.partition("/login")[0]
        while True:
            try:
                assert httpx.get(f"{self.url}/health").status_code == 200
                return
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.05)

    def client(self, role: str = "run") -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.secrets[role]}"}, timeout=300)

    def get(self, path: str, **params: Any) -> Any:
        with self.client("read") as client:
            answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, role: str = "run") -> httpx.Response:
        with self.client(role) as client:
            return client.post(path, json=body)

    def until(self, name: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The state of a run as soon as it fits."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            state: dict[str, Any] = self.get(f"/runs/{name}")
            if fits(state):
                return state
            assert time.monotonic() < deadline, state
            time.sleep(0.1)

    def until_over(self, name: str) -> dict[str, Any]:
        return self.until(name, lambda state: state["state"] not in ("queued", "running", "cancelling"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(300)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the finished run `small`, which was started by POST /runs."""
    running = Service(tmp_path_factory.mktemp("serve") / "runs", "--rate", "1000")
    answer = running.post("/runs", {"name": "small", "config": SMALL})
    assert answer.status_code == 202, answer.text
    state = running.until_over("small")
    assert state["state"] == "released", state
    yield running
    running.stop()
