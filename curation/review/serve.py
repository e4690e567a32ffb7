"""The embedded Argilla server: one command, one machine, no Docker, no Elasticsearch, no Redis to install.

Makes an environment of its own for argilla-server (constraints-argilla.txt), accounts with random passwords, and runs
`server/main.py` in it on loopback until it is stopped. Run it with `saferthoughts review serve`. Data stay in the
server's home (`curation/review/home.py`) across restarts.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from curation.review.home import credentials_of, forget, remember, server_version
from pipelines.errors import UserError
from pipelines.teachers.vllm_server import free_port, port_problem

SERVER = Path(__file__).parent / "server" / "main.py"
PINS = Path(__file__).parents[2] / "constraints-argilla.txt"
_START_S = 90.0
_STOP_S = 3.0


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server: where it is, its process, and the accounts that were made for it now."""

    url: str
    process: int
    new_accounts: tuple[dict[str, str], ...]
    seconds: float
    ended: Callable[[], bool]


def environment(report: Callable[[str], None]) -> Path:
    """The Python of argilla-server's environment, which is made where it is missing.

    Raises:
        UserError: it cannot be installed.
    """
    folder = _folder()
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if environment_ready():
            return python
        report(f"Making an environment for argilla-server in {folder}: once, about a minute.")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(PINS)]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = (line for line in done.stderr.splitlines() if line.startswith("ERROR"))
            message = next(errors, done.stderr.strip()[-200:])
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"argilla-server cannot be installed: {message}")
        (folder / ".ready").touch()
    return python


def environment_ready() -> bool:
    """Whether argilla-server's environment is there, whole."""
    return (_folder() / ".ready").exists()


def _folder() -> Path:
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saferthoughts"
    return cache / f"argilla-server-{sys.version_info.major}.{sys.version_info.minor}-{pins}"


@contextmanager
def serving(home: Path, port: int, annotators: int, report: Callable[[str], None] = print) -> Iterator[Serving]:
    """Run the server while the block runs.

    Args:
        port: 0 for any that is free.
        annotators: How many annotators' accounts there are at least.
        report: Called with each line about what is under way.

    Raises:
        UserError: a server runs there already, the port is taken, or the server does not start.
    """
    _check_free(home, port)
    _, new = credentials_of(home, annotators)
    python = environment(report)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    begin = time.monotonic()
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [str(python), str(SERVER), str(home.resolve()), str(port)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
        try:
            _wait_for(url, process, home / "server.log", begin)
            remember(home, url, process.pid)
            yield Serving(url, process.pid, tuple(new), time.monotonic() - begin, lambda: process.poll() is not None)
        finally:
            forget(home)
            _stop(process)


def _environment() -> dict[str, str]:
    """What the server inherits: no key or token of the user's, and no Python path of ours."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "XDG_CACHE_HOME")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _check_free(home: Path, port: int) -> None:
    import json

    state = home / "server.json"
    if state.exists():
        try:
            running = json.loads(state.read_text(encoding="utf-8"))
            server_version(running["url"])
        except (UserError, ValueError, KeyError):
            forget(home)  # killed, it could not tidy up
        else:
            raise UserError(f"A server runs already for {home}: {running['url']} (process {running['pid']}).")
    if port and port_problem(port):
        raise UserError(f"Port {port} is taken. Give another one: --port 0 takes any that is free.")


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path, begin: float) -> None:
    while time.monotonic() - begin < _START_S:
        if process.poll() is not None:
            break
        try:
            server_version(url)
            return
        except UserError:
            time.sleep(0.2)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    raise UserError(f"argilla-server did not start: {lines[-1][:300]} (more in {log})")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server and all that it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
