"""Runs one untrusted Python program in bubblewrap: a namespace of its own, hard limits, nothing of the host.

What the program sees: a read-only `/usr`, the interpreter, `/dev/null`, its own text, its standard input. What holds:

    files      nothing else of the host is there, not even /proc, /etc, /tmp; no place can be written to
    network    an own, empty namespace, and no sockets at all, so neither loopback nor a hypervisor's vsock
    identity   an own user id (setpriv) where we are root, an own user namespace where not; no capabilities, no way to
               gain any; an own process namespace, whose end ends every process in it, daemons too
    time       `Limits.cpu` seconds of computing a process (SIGXCPU, a second later SIGKILL), `Limits.wall` for all
    memory     `Limits.memory` of address space a process, `Limits.processes` of them at once, threads included: their
               product is the most. Shared segments and memfd files, which would not count, cannot be made
    output     `Limits.output` bytes to each stream. Streams are unnamed files: a flood cannot hang or fill a pipe
    calls      the system calls of eval/sandbox/seccomp.py fail

What does not: a hole in the kernel itself; one program slowing another (they share cores, `SLOTS` at once); facts of
the machine that calls tell (kernel version, memory, cores); the world-readable rest of `/usr`. Only the standard
library is there: a program that wants numpy fails. Tests are in tests/eval/test_sandbox.py, an attack each.

Reads and writes nothing that lasts. `available()` says why programs cannot be run here; `await run(program, stdin)`.
"""

import ctypes
import itertools
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

from eval.sandbox.seccomp import seccomp_filter, supported

SLOTS = os.cpu_count() or 2

# Where we are root each sandbox runs under a user id of its own, so that the limit on processes is its own too.
_USER_IDS = range(20_000, 60_000)
_numbers = itertools.count(os.getpid() * 97)
_NOBODY = "65534"
_STACK = 256 << 20
_FILES = 32
_STDERR_TAIL = 2_000
_SIGXCPU = 128 + 24
# From linux/prctl.h.
_SET_CHILD_SUBREAPER = 36

Status = Literal["ended", "failed", "timeout", "output_limit"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one program. `cpu` and `wall` in seconds, `memory` and `output` in bytes; see the module's docstring.

    Computing is counted apart from waiting, so that a busy machine does not fail a program that is fast enough.
    """

    cpu: int = 6
    wall: float = 15
    memory: int = 1 << 30
    processes: int = 4
    output: int = 16 << 20


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """How a program went. `failed`: it ended with an exit code other than 0; `stderr` is the end of that stream."""

    status: Status
    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float


class SandboxError(Exception):
    """The sandbox itself failed: nothing is known about the program."""


def run(program: str, stdin: str, limits: Limits) -> ProgramOutcome:
    """Run one program and wait for its end: at most `limits.wall` seconds. Blocks: call it from a thread.

    Raises:
        SandboxError: bubblewrap did not come as far as starting the program.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        text, calls, given, out, err, status = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(6))
        for file, content in ((text, program.encode(errors="replace")), (calls, seccomp_filter())):
            _fill(file, content)
        _fill(given, stdin.encode(errors="replace"))
        passed = (text.fileno(), calls.fileno(), status.fileno())
        process = subprocess.Popen(
            _command(*passed, limits), stdin=given, stdout=out, stderr=err, pass_fds=passed, env={}
        )
        with _reaped(process, status):
            in_time = _ends(process, limits.wall)
        seconds = time.monotonic() - started
        reported = _content(status)
        exit_code = _exit_code(reported) if in_time else None
        stderr = _content(err)[-_STDERR_TAIL:].decode(errors="replace")
        if exit_code is None and (in_time or b"child-pid" not in reported):
            reason = " ".join(stderr.split()) or f"no reason given in {seconds:.0f} s"
            raise SandboxError(f"bubblewrap did not come to run the program: {reason}")
        found = _content(out)
        full = max(len(found), err.seek(0, os.SEEK_END)) >= limits.output
    return ProgramOutcome(_status(in_time, exit_code, full), exit_code, found.decode(errors="replace"), stderr, seconds)


@cache
def available() -> str:
    """Why programs cannot be run here, or "" if they can: one is, and what it sees is compared with what it may."""
    if platform.system() != "Linux" or not supported():
        return f"The sandbox needs Linux on x86-64 or ARM64, this is {platform.system()} on {platform.machine()}."
    for command, package in (("bwrap", "bubblewrap"), ("setpriv", "util-linux"), ("prlimit", "util-linux")):
        if shutil.which(command) is None:
            return f"Untrusted programs run in bubblewrap, and '{command}' is not installed: apt install {package}."
    try:
        outcome = run(_PROBE, "", Limits())
    except SandboxError as error:
        return f"bubblewrap cannot make a sandbox here ({error}). Run where namespaces are allowed."
    if outcome.status != "ended" or outcome.stdout != "contained\n":
        message = " ".join(f"{outcome.stdout} {outcome.stderr}".split())
        return f"The sandbox does not hold here ({message or outcome.status}), so no program is run in it."
    return ""


# Starts a thread, as programs may, and prints every hole that it finds in the sandbox.
_PROBE = """
import os, socket, threading
wrong = sorted(set(os.listdir("/")) - {"dev", "lib", "lib64", "program.py", "python", "usr"})
if os.getuid() == 0:
    wrong.append("root")
for name, attempt in {
    "socket": socket.socket,
    "write": lambda: open("/written", "w"),
    "become root": lambda: os.setuid(0),
}.items():
    try:
        attempt()
        wrong.append(name)
    except OSError:
        pass
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
print(*(wrong or ["contained"]))
"""


def _command(program: int, calls: int, status: int, limits: Limits) -> list[str]:
    """bwrap, then setpriv where we are root, then prlimit, then the interpreter; the numbers are file descriptors."""
    root = os.geteuid() == 0
    return [
        shutil.which("bwrap") or "bwrap",
        *["--cap-drop", "ALL"],
        # Being root, we stay in the machine's user namespace: a limit on processes does not bind root's own id there,
        # and the id that setpriv takes would not exist in another.
        *(["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else []),
        *([] if root else ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]),
        *["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"],
        *["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv", "--setenv", "PATH", "/usr/bin"],
        *["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"],
        *_interpreter_mount(),
        # bubblewrap 0.8 makes the folder for a single device with mode 0700, which only root could enter.
        *["--perms", "0755", "--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null"],
        *["--perms", "0444", "--ro-bind-data", str(program), "/program.py"],
        *["--remount-ro", "/", "--chdir", "/"],
        *["--seccomp", str(calls), "--json-status-fd", str(status), "--"],
        *(_own_identity() if root else []),
        *["/usr/bin/prlimit", f"--as={limits.memory}", f"--cpu={limits.cpu}:{limits.cpu + 1}"],
        *[f"--nproc={limits.processes}", f"--fsize={limits.output}", f"--nofile={_FILES}", f"--stack={_STACK}"],
        *["--core=0", "--", _interpreter(), "-I", "-S", "-B", "-X", "utf8", "/program.py"],
    ]


def _own_identity() -> list[str]:
    number = _USER_IDS[next(_numbers) % len(_USER_IDS)]
    drop = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    return ["/usr/bin/setpriv", f"--reuid={number}", f"--regid={number}", *drop]


def _interpreter() -> str:
    """The interpreter's path inside the sandbox: an installation outside /usr is mounted at /python."""
    real, prefix = Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()
    return str(real) if prefix.is_relative_to("/usr") else str("/python" / real.relative_to(prefix))


def _interpreter_mount() -> Sequence[str]:
    prefix = Path(sys.base_prefix).resolve()
    if prefix.is_relative_to("/usr"):
        return ["--setenv", "LD_LIBRARY_PATH", str(prefix / "lib")]
    return ["--ro-bind", str(prefix), "/python", "--setenv", "LD_LIBRARY_PATH", "/python/lib"]


@contextmanager
def _reaped(process: subprocess.Popen[bytes], status: IO[bytes]) -> Iterator[None]:
    """Kill and collect what still runs at the end. bwrap's death kills its process 1, and that everything inside."""
    _adopt_orphans()
    try:
        yield
    finally:
        process.kill()
        process.wait()
        for entry in _status_entries(_content(status)):
            if "child-pid" in entry:
                _collect(entry["child-pid"])


@cache
def _adopt_orphans() -> None:
    """Have what our children leave behind fall to us, for as long as this process lives.

    bwrap ends without collecting its process 1, which the machine's own process 1 would have to do; in many containers
    that collects nothing, and every program would leave a zombie. Where the kernel refuses, that is how it stays.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _collect(number: int) -> None:
    with suppress(ChildProcessError, ProcessLookupError):  # collected already, or none of ours
        if os.waitpid(number, os.WNOHANG) == (0, 0):
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ends in time. `Popen.wait` would look every 50 ms only."""
    handle = os.pidfd_open(process.pid)
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))
    finally:
        os.close(handle)


def _exit_code(status: bytes) -> int | None:
    """The program's own exit code, which bwrap writes only where it could start one."""
    codes = [entry["exit-code"] for entry in _status_entries(status) if "exit-code" in entry]
    return codes[0] if codes else None


def _status_entries(status: bytes) -> list[dict[str, int]]:
    """What bwrap wrote so far, an object a line; the last line may be half of one."""
    return [
        json.loads(line) for line in status.decode().splitlines(keepends=True) if line.endswith("\n") and line.strip()
    ]


def _status(in_time: bool, exit_code: int | None, full: bool) -> Status:
    if full:
        return "output_limit"
    if not in_time or exit_code == _SIGXCPU:
        return "timeout"
    return "failed" if exit_code else "ended"


def _fill(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.seek(0)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
