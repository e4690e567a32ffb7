"""A Hub of our own (tests/hub) for the real clients, each run of ours a process as a user starts it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cards.release.build import build_release
from curation.quality.checks import check
from pipelines.runs import RunFolder
from tests.commands import Command, command
from tests.conftest import Once

REPO = "acme/safe"
SERVER = Path(__file__).parents[1] / "hub" / "server.py"


@dataclass
class TestHub:
    """The running server, and what its clients need to know."""

    __test__ = False
    url: str
    home: Path
    xet: bool
    # The cache of the Hub's client, where it is to outlast `home`: commands with one and the same share a warm process.
    cache: Path | None = None

    def env(self, token: str | None = "hf_alice") -> dict[str, str]:
        """The environment of a client: this Hub, this token, caches of its own."""
        apart = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT")
        env = {key: value for key, value in os.environ.items() if key not in apart}
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(self.cache or self.home / "hf")}
        env |= {"SAFERTHOUGHTS_CACHE": str(self.home / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
        if not self.xet:
            env["HF_HUB_DISABLE_XET"] = "1"
        return env | ({"HF_TOKEN": token} if token else {})

    def run(self, *arguments: str, token: str | None = "hf_alice", **more: str) -> subprocess.CompletedProcess[str]:
        """One command of ours, to its end."""
        return command(arguments, self.home, self.env(token) | more, timeout=500)

    def start(self, *arguments: str) -> Command:
        """One command of ours, under way."""
        return Command(arguments, env=self.env(), cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def python(self, code: str, *arguments: str, token: str | None = "hf_alice") -> str:
        """What a piece of Python prints that uses the Hub's own clients."""
        done = command(["-c", code, *arguments], self.home, self.env(token), timeout=500)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def faults(self, *faults: dict[str, Any]) -> None:
        """Set what goes wrong from now on (tests/hub/faults.py); nothing, if nothing is given."""
        self._post("/_faults", list(faults))

    def begin_anew(self) -> None:
        """Keep everything in a folder of `home` from now on."""
        self._post("/_root", str(self.home / "root"))

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


@contextmanager
def serving(home: Path, *options: str) -> Iterator[TestHub]:
    """A Hub that keeps what it has in a folder."""
    port_file = home / "url"
    process = subprocess.Popen([sys.executable, str(SERVER), str(home / "root"), str(port_file), *options])
    try:
        for _ in range(3000):
            if port_file.exists() and port_file.read_text():
                break
            time.sleep(0.1)
        yield TestHub(port_file.read_text(), home, "--xet" in options)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., TestHub]]:
    """Start a Hub; ended after the test."""
    with ExitStack() as running:

        def start(*options: str) -> TestHub:
            home = tmp_path / f"hub{len(list(tmp_path.glob('hub*')))}"
            home.mkdir()
            return running.enter_context(serving(home, *options))

        yield start


@pytest.fixture(scope="session")
def hub_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHub]:
    """The Hub that tests have one after the other."""
    with serving(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(hub_once: TestHub, tmp_path: Path) -> Iterator[TestHub]:
    """A Hub over plain large-file uploads, without repositories, faults and caches from before."""
    cache = hub_once.home / "hf"
    hub = TestHub(hub_once.url, tmp_path / "hub", xet=False, cache=cache)
    hub.home.mkdir()
    hub.begin_anew()
    yield hub
    hub.faults()
    shutil.rmtree(cache, ignore_errors=True)


def tags(hub: Any) -> dict[str, str]:
    """The commits of all tags and branches."""
    refs = hub.get(f"/api/datasets/{REPO}/refs")
    return {ref["name"]: ref["targetCommit"] for ref in [*refs["tags"], *refs["branches"]]}


def commits(hub: Any) -> list[str]:
    """The titles of all commits, the newest first."""
    return [commit["title"] for commit in hub.get(f"/api/datasets/{REPO}/commits/main")]


@pytest.fixture(scope="session")
def built(judged_once: Path, once: Once) -> Path:
    """Releases 1.0.0 and, with the rows that it left out, 1.1.0, beside their run."""

    def fill(folder: Path) -> None:
        run = RunFolder(shutil.copytree(judged_once, folder / "run"))
        check(run)
        accepted = run.read("accepted")
        run.write("accepted", accepted.slice(4))
        first = shutil.copytree(build_release(run).folder, folder / "first")
        run.write("accepted", accepted)
        shutil.copytree(build_release(run, since=first).folder, folder / "second")

    return once("built", fill)


@pytest.fixture
def versions(built: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The two releases, the test's own to change; their run is beside them."""
    folder = shutil.copytree(built, tmp_path / "built")
    return folder / "first", folder / "second"
