"""The sandbox, attacked: each test is a program that uses up the machine, or does what programs may."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from eval.sandbox.bubblewrap import Limits
from tests.eval.sandboxed import NULL, attack, inside, resident

ROOT = Path(__file__).resolve().parents[2]


def test_program_reads_its_input_and_prints(limits: Limits) -> None:
    outcome = attack("print(input()[::-1])", limits, "grün\n")
    assert (outcome.status, outcome.exit_code, outcome.stdout) == ("ended", 0, "nürg\n")


def test_ordinary_means_are_there(limits: Limits) -> None:
    """Threads, an event loop, deep recursion: what contest programs reach for."""
    outcome = attack(
        """
        import asyncio, sys, threading
        sys.setrecursionlimit(100000)
        def depth(n):
            return n and 1 + depth(n - 1)
        threading.stack_size(64 << 20)
        found = []
        thread = threading.Thread(target=lambda: found.append(depth(50000)))
        thread.start()
        thread.join()
        print(found, asyncio.run(asyncio.sleep(0, "slept")))
        """,
        limits,
    )
    assert (outcome.stdout, outcome.stderr) == ("[50000] slept\n", "")


def test_the_null_device_can_be_read_and_written(limits: Limits) -> None:
    outcome = attack(NULL, limits)
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ended", "0\n", "")


def test_orphans_inside_are_collected(limits: Limits) -> None:
    """Grandchildren whose parents are gone fall to the sandbox's process 1: were they zombies, no fork were left."""
    outcome = attack(
        """
        import os, time
        for _ in range(20):
            while True:
                try:
                    child = os.fork()
                    break
                except OSError:
                    time.sleep(0.01)
            if child == 0:
                while True:
                    try:
                        os.fork()
                        break
                    except OSError:
                        time.sleep(0.01)
                os._exit(0)
            os.waitpid(child, 0)
        print("twenty times")
        """,
        replace(limits, cpu=10),
    )
    assert (outcome.status, outcome.stdout) == ("ended", "twenty times\n")


@pytest.mark.parametrize("program", ["print(1)", "import time; time.sleep(99)", "import os; os.kill(os.getppid(), 9)"])
def test_no_zombie_is_left_outside(limits: Limits, program: str) -> None:
    """Neither for us to collect nor for the machine's process 1, which in many containers collects nothing."""
    code = f"""
import os
from eval.sandbox.bubblewrap import Limits, run
for _ in range(2):
    print(run({program!r}, "", {replace(limits, wall=3)!r}).status)
try:
    print("left", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("nothing is left")
"""
    # Another process that takes in orphans, so that none can fall to the machine's.
    outer = f"""
import ctypes, os, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
subprocess.run([sys.executable, "-c", {code!r}], check=True)
try:
    print("left outside", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("nothing is left outside")
"""
    done = subprocess.run(
        [sys.executable, "-u", "-c", outer], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[2:] == ["nothing is left", "nothing is left outside"], done.stdout + done.stderr


def test_crash_is_told_with_its_exit_code_and_last_words(limits: Limits) -> None:
    outcome = attack("1 / 0", limits)
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "ZeroDivisionError" in outcome.stderr


def test_fork_bomb_stays_within_its_processes(limits: Limits) -> None:
    most = 0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            attack,
            """
            import os
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
            """,
            # Children begin to count anew what they compute: only the clock ends it.
            replace(limits, wall=2),
        )
        while not running.done():
            most = max(most, len(inside(limits)))
            time.sleep(0.02)
    assert running.result().status == "timeout"
    assert 2 <= most <= limits.processes


def test_memory_of_a_process_is_limited(limits: Limits) -> None:
    outcome = attack("block = bytearray(1 << 30)", limits)
    assert outcome.status == "failed"
    assert "MemoryError" in outcome.stderr


def test_limits_cannot_be_raised(limits: Limits) -> None:
    outcome = attack(
        """
        import resource
        for name in ("AS", "CPU", "NPROC", "FSIZE", "NOFILE"):
            try:
                resource.setrlimit(getattr(resource, "RLIMIT_" + name), (1 << 40, 1 << 40))
                print("raised", name)
            except (ValueError, OSError):
                pass
        """,
        limits,
    )
    assert (outcome.status, outcome.stdout) == ("ended", "")


def test_memory_of_all_processes_is_limited(limits: Limits) -> None:
    roomy = replace(limits, cpu=30, memory=128 << 20)
    most = 0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            attack,
            """
            import os, time
            for _ in range(20):
                try:
                    os.fork()
                except OSError:
                    break
            held = []
            try:
                while True:
                    held.append(bytearray(b"x" * (1 << 20)))
            except MemoryError:
                time.sleep(1)
            """,
            roomy,
        )
        while not running.done():
            most = max(most, sum(map(resident, inside(limits))))
            time.sleep(0.02)
    # More than one may have, so that they are several; never more than all may.
    assert roomy.memory < most <= roomy.memory * roomy.processes


def test_memory_that_no_limit_counts_cannot_be_had(limits: Limits) -> None:
    outcome = attack(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        calls = {"shmget": (0, 1 << 20, 0o1777), "msgget": (0, 0o1777), "memfd_create": (b"x", 0)}
        for name, arguments in calls.items():
            print(name, getattr(libc, name)(*arguments), ctypes.get_errno())
        """,
        limits,
    )
    assert outcome.stdout == "shmget -1 1\nmsgget -1 1\nmemfd_create -1 1\n"


def test_disk_cannot_be_filled(limits: Limits) -> None:
    outcome = attack(
        """
        import os
        for folder, _, _ in [("/", 0, 0), ("/tmp", 0, 0), ("/dev/shm", 0, 0), *os.walk("/dev")]:
            try:
                open(f"{folder}/fill", "wb").write(bytes(1 << 16))
                print("wrote into", folder)
            except OSError:
                pass
        for folder, _, _ in os.walk("/usr"):
            if os.access(folder, os.W_OK):
                print("may write into", folder)
        """,
        replace(limits, cpu=30),
    )
    assert (outcome.status, outcome.stdout) == ("ended", "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_flood_ends_at_the_limit(limits: Limits, stream: str) -> None:
    outcome = attack(f"import sys\nwhile True: sys.{stream}.write('x' * 65536)", limits)
    assert outcome.status == "output_limit"
    assert len(outcome.stdout) <= limits.output
