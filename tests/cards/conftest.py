"""A Hub of our own (tests/hub) for the real clients, each run of ours a process as a user starts it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).parents[1] / "hub" / "server.py"


@dataclass
class TestHub:
    """The running server, and what its clients need to know."""

    __test__ = False
    url: str
    home: Path
    xet: bool

    def env(self, token: str | None = "hf_alice") -> dict[str, str]:
        """The environment of a client: this Hub, this token, caches of its own."""
        apart = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT")
        env = {key: value for key, value in os.environ.items() if key not in apart}
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(self.home / "hf"), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
        env |= {"SAFERTHOUGHTS_CACHE": str(self.home / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        if not self.xet:
            env["HF_HUB_DISABLE_XET"] = "1"
        return env | ({"HF_TOKEN": token} if token else {})

    def run(self, *arguments: str, token: str | None = "hf_alice", **more: str) -> subprocess.CompletedProcess[str]:
        """One command of ours, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "saferthoughts", *arguments],
            env=self.env(token) | more,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """One command of ours, under way."""
        return subprocess.Popen(
            [sys.executable, "-m", "saferthoughts", *arguments],
            env=self.env(),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, code: str, *arguments: str, token: str | None = "hf_alice") -> str:
        """What a piece of Python prints that uses the Hub's own clients."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.env(token),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def faults(self, *faults: dict[str, Any]) -> None:
        """Set what goes wrong from now on (tests/hub/faults.py); nothing, if nothing is given."""
        self._post("/_faults", list(faults))

    def log(self) -> list[tuple[str, str, int]]:
        """Every request since the last call."""
        return [tuple(entry) for entry in self._post("/_log", [])]

    def wait_until_held(self) -> None:
        """Wait for a request that a fault makes wait."""
        for _ in range(6000):
            if self._post("/_held", []):
                return
            time.sleep(0.05)
        raise AssertionError("no request came that was to wait")

    def get(self, path: str) -> Any:
        """What the Hub's API answers."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": "Bearer hf_alice"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())

    def _post(self, path: str, value: Any) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(value).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A folder with room for so many bytes: memory mounted as a disk, where this user may do that."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., TestHub]]:
    """Start a Hub; ended after the test."""
    running = []

    def start(*options: str) -> TestHub:
        home = tmp_path / f"hub{len(running)}"
        home.mkdir()
        port_file = home / "url"
        running.append(subprocess.Popen([sys.executable, str(SERVER), str(home / "root"), str(port_file), *options]))
        for _ in range(3000):
            if port_file.exists() and port_file.read_text():
                hub = TestHub(port_file.read_text(), home, "--xet" in options)
                hub.faults()
                return hub
            time.sleep(0.1)
        raise RuntimeError("the Hub of the tests did not start")

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def hub(start_hub: Callable[..., TestHub]) -> TestHub:
    """A Hub over plain large-file uploads."""
    return start_hub()
