"""A program in the sandbox, and what is left of it in /proc; for the tests of the sandbox."""

import itertools
import resource
import secrets
import textwrap
import time
from pathlib import Path

from eval.sandbox.bubblewrap import Limits, ProgramOutcome, run

# Told apart in /proc by a limit on output that nothing else has.
MARKS = itertools.count(1_000_000 + secrets.randbelow(1 << 20))
# Reads from the null device and writes to it.
NULL = """
import os, subprocess
with open(os.devnull) as null:
    assert null.read() == ""
with open("/dev/null", "w") as null:
    null.write("gone")
print(subprocess.run(["/usr/bin/true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode)
"""


def attack(program: str, limits: Limits, stdin: str = "") -> ProgramOutcome:
    return run(textwrap.dedent(program), stdin, limits)


def inside(limits: Limits) -> list[Path]:
    """/proc's folders of the living processes of a sandbox."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            size = next(line for line in (process / "limits").read_text().splitlines() if "Max file size" in line)
            alive = (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (OSError, StopIteration):
            continue
        if alive and size.split()[3] == str(limits.output):
            found.append(process)
    return found


def survivors(limits: Limits, patience: float = 300) -> list[Path]:
    """Those that are alive once they had time to die."""
    until = time.monotonic() + patience
    while (found := inside(limits)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def resident(process: Path) -> int:
    """Bytes of memory that a process holds."""
    try:
        return int((process / "statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
