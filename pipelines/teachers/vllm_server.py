"""vLLM as a server: alone, or for as long as a run needs it.

Writes a log into the folder it is given. Run it with `saferthoughts teachers serve MODEL --run`, or let `serve:` in a
teacher's entry have `generate` do it. Servers bind 127.0.0.1 and end when we do, even by kill -9: `server_process.py`
stands between.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import IO
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from pipelines.errors import Interrupted, UserError, one_line
from pipelines.progress import console
from pipelines.settings.teacher import Teacher
from pipelines.teachers.server_process import kept
from pipelines.teachers.vllm_command import HOST, ServeCommand, port_of, serve_command

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# From SIGTERM to SIGKILL: time for vLLM to let go of a GPU.
_GRACE_S = 15.0
_LOOK_EVERY_S = 0.2
_SHOWN_EVERY_S = 10.0
_LAST_LINES = 5
NO_VLLM = (
    "vLLM is not installed: there is no 'vllm' on the PATH. On a machine with a GPU: pip install -e '.[vllm]', or put "
    "the one of another environment on the PATH."
)


def run_server(command: ServeCommand, say: Callable[[str], None]) -> int:
    """Serve in the foreground until the server ends, with its exit code, or until a signal stops it, with 130.

    SIGINT, SIGTERM and SIGHUP are passed on. Its output goes to ours; `say` is called once it answers.

    Raises:
        UserError: vLLM is not installed, or the port is taken.
    """
    _require_free(command.port)
    started = time.monotonic()
    server = _start(command, None)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    stopped = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        server.send_signal(number)

    kept = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        for seconds in _until_healthy(server, command, started):
            say(f"not answering yet, {seconds:.0f} s")
        if server.poll() is None:
            say(f"answers at {command.base_url} after {time.monotonic() - started:.0f} s; Ctrl-C ends it")
        code = server.wait()
        # Servers end in many ways when they are asked to.
        return Interrupted.exit_code if stopped else code
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        _stop(server)


@contextmanager
def served(name: str, teacher: Teacher, folder: Path) -> Iterator[str]:
    """The server of a teacher whose entry has `serve:`, while the block runs; gives its base URL.

    Its output goes to `folder`/serve-NAME.log, written anew. It listens on a free port of 127.0.0.1 unless `args` names
    one. At the end it gets SIGTERM and, where that does not end it, SIGKILL, with every process of its group; so it
    does when this process is gone.

    Raises:
        UserError: the entry has no `serve:`, vLLM is not installed, the port is taken, or the server ended or did not
            answer in time; with the last lines of its log.
    """
    if teacher.serve is None:
        raise UserError(f"Teacher '{name}' has no serve: entry, so there is nothing to start for it.")
    port = port_of(teacher.serve.args)
    if port is None:
        port = free_port()
    else:
        _require_free(port)
    command = serve_command(
        teacher.serve.model, port, teacher.serve.args, served_as=teacher.model, context_length=teacher.context_length
    )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"serve-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.log"
    starter = os.getpid()
    with log.open("wb") as output:
        server = _start(command, output)
    try:
        _wait(name, server, command, teacher.serve.health_timeout_s, log)
        yield command.base_url
    finally:
        # A forked child that leaves the block must not end its parent's server.
        if os.getpid() == starter:
            _stop(server)


def _wait(name: str, server: subprocess.Popen[bytes], command: ServeCommand, limit_s: float, log: Path) -> None:
    started = time.monotonic()
    console.print(f"{name}: starting {command.line()}", highlight=False, markup=False, soft_wrap=True)
    for seconds in _until_healthy(server, command, started, limit_s):
        console.print(
            f"{name}: not answering yet, {seconds:.0f} s; its log: {log}", highlight=False, markup=False, soft_wrap=True
        )
    seconds = time.monotonic() - started
    if server.poll() is not None:
        raise UserError(
            f"The server of teacher '{name}' ended with exit code {server.returncode} before it answered. Its log, "
            f"{log}, ends with: {last_lines(log)}"
        )
    if not healthy(command.port):
        raise UserError(
            f"The server of teacher '{name}' did not answer within {limit_s:g} s. Give it longer with --set "
            f"teachers.{name}.serve.health_timeout_s={2 * limit_s:g}, or see its log, {log}, which ends with: "
            f"{last_lines(log)}"
        )
    console.print(
        f"{name}: answers at {command.base_url} after {seconds:.0f} s", highlight=False, markup=False, soft_wrap=True
    )


def _until_healthy(
    server: subprocess.Popen[bytes], command: ServeCommand, started: float, limit_s: float = float("inf")
) -> Iterator[float]:
    """Seconds waited, every now and then, until the server answers, has ended, or the limit is over."""
    shown_at = started
    while server.poll() is None and not healthy(command.port):
        now = time.monotonic()
        if now - started > limit_s:
            return
        if now - shown_at >= _SHOWN_EVERY_S:
            shown_at = now
            yield now - started
        time.sleep(_LOOK_EVERY_S)


def healthy(port: int) -> bool:
    """Whether a server of this machine says that it is ready."""
    # A proxy of the environment is for what is outside this machine.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/health", timeout=2):
            return True
    except (URLError, OSError, HTTPException):
        return False


def vllm_program() -> str | None:
    """Where vLLM is: on the PATH, or beside this Python; None where it is not."""
    beside = Path(sys.executable).with_name("vllm")
    return shutil.which("vllm") or (str(beside) if os.access(beside, os.X_OK) else None)


def _start(command: ServeCommand, output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start the server under its keeper, in a session of its own: Ctrl-C reaches us, and we decide."""
    executable = vllm_program()
    if executable is None:
        raise UserError(NO_VLLM)
    return subprocess.Popen(
        [*kept(_GRACE_S), executable, *command.argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(_GRACE_S + 5)
    except subprocess.TimeoutExpired:
        server.kill()  # the server is told by the kernel that its keeper is gone
        server.wait()


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_problem(port: int) -> str:
    """Why no server could listen at a port of loopback, "" where one could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _require_free(port: int) -> None:
    if problem := port_problem(port):
        raise UserError(f"Port {port} of {HOST} cannot be used ({problem}). Choose another.")


def last_lines(log: Path) -> str:
    """The end of a log in one line, nothing in it that a terminal would act on."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8000))
        text = _COLOURS.sub("", file.read().decode(errors="replace"))
    lines = [line.strip()[:300] for line in text.splitlines() if line.strip()][-_LAST_LINES:]
    return one_line(" | ".join(lines), 2000) or "(nothing)"
