"""The sandbox, attacked: each test is a program that tries to get out, to see, to stay, or to kill."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from eval.sandbox.bubblewrap import Limits, SandboxError, available, run
from tests.eval.sandboxed import MARKS, NULL, attack, inside, survivors

ROOT = Path(__file__).resolve().parents[2]


def test_network_cannot_be_reached(limits: Limits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        outcome = attack(
            f"""
            import socket
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_VSOCK, socket.AF_NETLINK):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                    try:
                        socket.socket(family, kind)
                        print("opened", family, kind)
                    except PermissionError:
                        pass
            for place in (("127.0.0.1", {server.getsockname()[1]}), ("1.1.1.1", 53)):
                try:
                    socket.create_connection(place, timeout=1)
                    print("reached", place)
                except OSError:
                    pass
            """,
            limits,
        )
        assert (outcome.status, outcome.stdout) == ("ended", "")
        with pytest.raises(TimeoutError):
            server.accept()


def test_host_files_are_not_there(limits: Limits, tmp_path: Path) -> None:
    secret = tmp_path / "expected.txt"
    secret.write_text("the expected output", encoding="utf-8")
    secret.chmod(0o666)
    wanted = ["/etc/passwd", "/etc/shadow", "/etc", "/root", "/home", "/tmp", "/var", "/sys", "/run", "/boot"]
    wanted += ["/proc/1/environ", "/proc/self/mountinfo", "/proc", "/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg"]
    wanted += [str(ROOT), str(Path.home()), str(secret), str(tmp_path), sys.prefix, sys.executable]
    wanted = [path for path in wanted if not path.startswith("/usr/")]
    outcome = attack(
        f"""
        import os
        for path in {wanted!r}:
            for way in (path, "/usr/.." + path, "/python/.." + path):
                if os.path.lexists(way):
                    print("there is", way)
        """,
        limits,
    )
    assert (outcome.status, outcome.stdout) == ("ended", "")


def test_symlinks_lead_nowhere(limits: Limits) -> None:
    """Neither new ones, for there is no place for them, nor old ones in /usr that point out of it."""
    outcome = attack(
        """
        import os
        for place in ("/link", "/tmp/link", "/dev/link", "/program.py"):
            try:
                os.symlink("/etc/passwd", place)
                print("made", place)
            except OSError:
                pass
        for folder, folders, files in os.walk("/usr/lib"):
            for name in folders + files:
                path = os.path.join(folder, name)
                if os.path.islink(path) and os.path.exists(path):
                    real = os.path.realpath(path)
                    if not real.startswith(("/usr/", "/python/", "/dev/null")):
                        print(path, "leads to", real)
        """,
        replace(limits, cpu=30),
    )
    assert (outcome.status, outcome.stdout) == ("ended", "")


def test_nothing_but_its_three_streams_is_open(limits: Limits) -> None:
    """So neither the status that bubblewrap reports nor another test's input can be read or forged."""
    outcome = attack(
        """
        import os
        for number in range(3, 1024):
            try:
                os.fstat(number)
                print("open", number)
            except OSError:
                pass
        print(os.environ.get("HOME"), sorted(os.environ))
        """,
        limits,
    )
    assert outcome.stdout == "None ['LC_CTYPE', 'LD_LIBRARY_PATH', 'PATH', 'PWD']\n"


def test_other_sandboxes_are_not_seen(limits: Limits) -> None:
    sleeper = replace(limits, output=next(MARKS))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(attack, "import time; time.sleep(99)", sleeper)
        while not inside(sleeper):
            time.sleep(0.01)
        outcome = attack(
            """
            import os
            for number in range(1, 70000):
                try:
                    os.kill(number, 0)
                    print("seen", number)
                except ProcessLookupError:
                    pass
                except PermissionError:
                    print("other", number)
            print(os.getpid())
            """,
            limits,
        )
        alive = inside(sleeper)
        for process in alive:
            os.kill(int(process.name), signal.SIGKILL)
    assert len(alive) == 1
    lines = outcome.stdout.splitlines()
    me = lines.pop()
    assert [line for line in lines if line.split()[1] not in ("1", me)] == []


@pytest.mark.parametrize("victim", ["os.getppid()", "1", "-1"])
def test_parent_survives_being_killed(limits: Limits, victim: str) -> None:
    outcome = attack(
        f"""
        import os, signal
        try:
            os.kill({victim}, signal.SIGKILL)
        except OSError:
            pass
        print("still here")
        """,
        limits,
    )
    assert outcome.status in ("ended", "failed")
    assert attack("print(1)", limits).stdout == "1\n"


def test_privileges_cannot_be_gained(limits: Limits) -> None:
    outcome = attack(
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        print(os.getuid() != 0, os.geteuid() != 0, os.getgroups() in ([], [65534]))
        for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.chroot("/usr")):
            try:
                attempt()
                print("gained")
            except OSError:
                pass
        for name, arguments in {
            "unshare": (0x10000000,),
            "mount": (b"none", b"/usr", b"tmpfs", 0, None),
            "ptrace": (16, 1, 0, 0),
        }.items():
            print(name, getattr(libc, name)(*arguments))
        """,
        limits,
    )
    assert outcome.stdout == "True True True\nunshare -1\nmount -1\nptrace -1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives each sandbox a user id of its own")
def test_each_sandbox_has_its_own_user(limits: Limits) -> None:
    users = {attack("import os; print(os.getuid(), os.getgid())", limits).stdout for _ in range(3)}
    assert len(users) == 3


def test_sleep_ends_with_the_time(limits: Limits) -> None:
    outcome = attack("import time; time.sleep(600)", replace(limits, wall=1))
    assert outcome.status == "timeout"
    assert 1 <= outcome.seconds < 300


def test_busy_loop_ends_with_the_computing_time(limits: Limits) -> None:
    outcome = attack("while True: pass", replace(limits, wall=300))
    assert outcome.status == "timeout"
    assert outcome.seconds < 300


def test_ignored_signals_do_not_help(limits: Limits) -> None:
    outcome = attack(
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
        """,
        replace(limits, wall=300),
    )
    assert (outcome.status, outcome.exit_code) == ("failed", 128 + signal.SIGKILL)
    assert outcome.seconds < 300


def test_daemonised_child_ends_with_its_program(limits: Limits) -> None:
    outcome = attack(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        print("gone")
        """,
        limits,
    )
    assert (outcome.status, outcome.stdout) == ("ended", "gone\n")
    assert outcome.seconds < 120


def test_sandbox_dies_with_the_process_that_made_it(limits: Limits) -> None:
    bounded = replace(limits, wall=99)
    code = f"from eval.sandbox.bubblewrap import Limits, run\nrun('import time; time.sleep(60)', '', {bounded!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        while not inside(limits):
            assert parent.poll() is None
            time.sleep(0.01)
        parent.kill()
    assert survivors(limits) == []


def test_sandbox_holds_for_a_user_who_is_not_root(tmp_path: Path) -> None:
    """By the system's own Python: ours may lie in a folder that only root can enter."""
    python = "/usr/bin/python3"
    if os.geteuid() != 0 or not Path(python).exists():
        pytest.skip("needs root, to become someone else, and /usr/bin/python3")
    if reason := available():
        pytest.skip(reason)
    (tmp_path / "eval" / "sandbox").mkdir(parents=True)
    for name in ("__init__", "sandbox/__init__", "sandbox/bubblewrap", "sandbox/seccomp"):
        shutil.copy(ROOT / "eval" / f"{name}.py", tmp_path / "eval" / f"{name}.py")
    code = (
        "from eval.sandbox.bubblewrap import available, Limits, run; assert not available(), available();"
        f"print(run('import os; print(os.getuid())' + {NULL!r}, '', Limits()).stdout)"
    )
    command = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", python, "-c", code]
    # tmp_path is for root's eyes only.
    shared = Path(shutil.copytree(tmp_path, f"/tmp/sandbox-as-nobody-{os.getpid()}"))
    try:
        shared.chmod(0o755)
        done = subprocess.run(command, cwd=shared, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    finally:
        shutil.rmtree(shared)
    if "SyntaxError" in done.stderr or "ImportError" in done.stderr:
        pytest.skip(f"{python} is too old for this code")
    assert (done.stdout.split(), done.stderr) == (["65534", "0"], "")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "'bwrap' is not installed: apt install bubblewrap"),
        ("echo 'No permissions to create a new namespace' >&2; exit 1", "cannot make a sandbox here .*No permissions"),
    ],
)
def test_reason_is_given_where_there_is_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, message: str
) -> None:
    for name in ("setpriv", "prlimit"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    if script is not None:
        (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    available.cache_clear()
    try:
        assert re.search(message, available())
        if script is not None:
            with pytest.raises(SandboxError, match="No permissions"):
                run("print(1)", "", Limits())
    finally:
        available.cache_clear()
