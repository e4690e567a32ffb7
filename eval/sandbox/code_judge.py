"""Does a program pass a problem's tests? Each test is a run in a sandbox of its own, up to the first that fails.

The program and the test's input go into the sandbox; the expected output never does: it is compared out here. At most
`SLOTS` sandboxes run at once, whatever the number of problems that are judged.

Reads and writes nothing. `await judged(code, cases, function)` gives the verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar

from eval.sandbox.bubblewrap import SLOTS, Limits, ProgramOutcome, run
from eval.sandbox.code_cases import Case, ends_with, same_output, same_value

Result = Literal["passed", "wrong_output", "failed", "timeout", "output_limit"]

_slots: RunVar[anyio.CapacityLimiter] = RunVar("sandbox_slots")

# Solutions are written as if these names were there, as they are where the problems come from: on the sites' judges,
# and in LiveCodeBench's. The last line takes back what math and operator put over the built-ins.
_PRELUDE = """
import sys, os, io, re, json, math, time, copy, heapq, bisect, queue, string, random, datetime, operator, itertools
import functools, statistics, collections, typing, builtins
from typing import *
from string import *
from collections import *
from heapq import *
from bisect import *
from itertools import *
from functools import *
from operator import *
from math import *
from builtins import *
sys.setrecursionlimit(50000)
"""

# A script, whose names are those of this very module, so that `if __name__ == "__main__"` runs.
_SCRIPT = "exec(compile({prelude!r}, 'prelude', 'exec'))\nexec(compile({code!r}, 'solution.py', 'exec'))\n"

# A module of its own, of which one function is called; what it prints goes to stderr.
_CALL = """
import json, os, sys, types
given = sys.stdin.read()
answers = os.dup(1)
os.dup2(2, 1)
solution = sys.modules["solution"] = types.ModuleType("solution")
exec(compile({prelude!r}, "prelude", "exec"), solution.__dict__)
exec(compile({code!r}, "solution.py", "exec"), solution.__dict__)
owner = solution.Solution() if hasattr(solution, "Solution") else solution
value = getattr(owner, {function!r})(*[json.loads(line) for line in given.split("\\n") if line.strip()])
with os.fdopen(answers, "w") as answer:
    json.dump(value, answer, default=list)
"""


@dataclass(frozen=True, slots=True)
class ProgramVerdict:
    """How many tests came out how, and the last line that the first failing one wrote to stderr.

    `untried` tests come after it and were not run.
    """

    results: dict[Result, int]
    untried: int
    failure: Result | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether all of them did."""
        return self.failure is None


async def judged(code: str, cases: Sequence[Case], function: str | None, limits: Limits) -> ProgramVerdict:
    """Run a program on its tests, in order. Bounded: a test takes at most `limits.wall` seconds.

    Args:
        code: What was written; for functional tests a function, or a class Solution with a method.
        cases: At least one.
        function: The name that functional tests call.
        limits: Of each test's run.

    Raises:
        SandboxError: a sandbox could not be made; nothing is known about the program.
        ValueError: there is no test, or a functional one without a function's name, or whose output is no JSON.
    """
    if not cases:
        raise ValueError("a program without tests cannot be judged")
    results: Counter[Result] = Counter()
    for number, case in enumerate(cases, start=1):
        # Left alone when cancelled: the run ends by its own limits, or with this process.
        result, outcome = await to_thread.run_sync(
            tried, code, case, function, limits, limiter=_sandboxes(), abandon_on_cancel=True
        )
        results[result] += 1
        if result != "passed":
            return ProgramVerdict(dict(results), len(cases) - number, result, _last_line(outcome.stderr))
    return ProgramVerdict(dict(results), 0)


def tried(code: str, case: Case, function: str | None, limits: Limits) -> tuple[Result, ProgramOutcome]:
    """One test: run, then compare here outside. Blocks for as long as the program runs.

    Raises:
        SandboxError, ValueError: as `judged`.
    """
    outcome = run(_program(code, case, function), case.input, limits)
    if outcome.status != "ended":
        return outcome.status, outcome
    same = {"functional": same_value, "stdin": same_output, "checks": ends_with}
    return "passed" if same[case.kind](outcome.stdout, case.output) else "wrong_output", outcome


def _sandboxes() -> anyio.CapacityLimiter:
    """The slots of this event loop."""
    try:
        return _slots.get()
    except LookupError:
        _slots.set(anyio.CapacityLimiter(SLOTS))
        return _slots.get()


def _program(code: str, case: Case, function: str | None) -> str:
    """The text that runs. The solution is a literal in it, compiled by itself: it may begin with `from __future__`."""
    if case.kind != "functional":
        return _SCRIPT.format(prelude=_PRELUDE, code=code)
    if not function or not function.isidentifier():
        raise ValueError(f"a functional test needs the name of a function, not {function!r}")
    return _CALL.format(prelude=_PRELUDE, code=code, function=function)


def _last_line(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1][:200] if lines else ""
