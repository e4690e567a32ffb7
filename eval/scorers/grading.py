r"""Is a final answer the right one? math-verify in worker processes, and whole numbers by themselves.

A comparison of two expressions may compute for ever, take all memory or end its process. So each runs in one of
`WORKERS` processes, which anyio keeps, kills and replaces; a comparison that gives no verdict is "no verdict", with
the reason, and never a wrong answer. math-verify's own time limits are signals, which fail in threads and count as
"wrong": they are off.

Reads and writes nothing. `await grade(gold, answer)` for one, `await grade_many(pairs)` for a list in its order.
"""

import re
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import to_process
from anyio.lowlevel import RunVar

WORKERS = 2
# Of computing a comparison: seen, all but a few in a thousand need under 0.1 s. Waiting is bounded beside it.
CPU_SECONDS = 10
WALL_SECONDS = 60
MEMORY = 4 << 30

_BASE = re.compile(r"(?P<digits>[0-9][0-9A-Za-z.]*)_(?:\{(?P<braced>[^{}]*)\}|(?P<bare>[0-9A-Za-z]))")
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,;:! ]|~|\s|\$")
_WHOLE = re.compile(r"(?:[^=]*=)?0*([0-9]{1,3})\.?")

_slots: RunVar[anyio.CapacityLimiter] = RunVar("grading_slots")


@dataclass(frozen=True, slots=True)
class Grade:
    """`right` is None where there is no verdict, and `reason` then says why; else it is empty."""

    right: bool | None
    reason: str = ""


async def grade(gold: str, answer: str, cpu_seconds: int = CPU_SECONDS, wall_seconds: float = WALL_SECONDS) -> Grade:
    """Compare the content of a box with the gold answer, both LaTeX without dollars.

    An answer that cannot be read as mathematics is wrong; a gold that cannot be, or a comparison that breaks off, is
    no verdict. Numbers with a base (`52_8`) are compared digit by digit, since math-verify reads the base over.
    """
    if (based := _same_base(gold, answer)) is not None:
        return Grade(based)
    async with _workers():
        reason = f"the comparison did not end in {wall_seconds:g} s"
        with anyio.move_on_after(wall_seconds):
            try:
                # A limiter of its own, or anyio would hold it back by another count.
                limiter = anyio.CapacityLimiter(1)
                return Grade(
                    await to_process.run_sync(_compare, gold, answer, cpu_seconds, cancellable=True, limiter=limiter)
                )
            except anyio.BrokenWorkerProcess:
                reason = f"the comparison took over {cpu_seconds} s of computing or ended its process"
            except _NoVerdict as error:
                reason = str(error)
    return Grade(None, reason)


async def grade_many(pairs: Sequence[tuple[str, str]]) -> list[Grade]:
    """The grades of (gold, answer) pairs, in their order."""
    grades = [Grade(None)] * len(pairs)

    async def fill(index: int, gold: str, answer: str) -> None:
        grades[index] = await grade(gold, answer)

    async with anyio.create_task_group() as group:
        for index, (gold, answer) in enumerate(pairs):
            group.start_soon(partial(fill, index, gold, answer))
    return grades


def grade_whole(gold: str, answer: str) -> Grade:
    r"""Compare whole numbers from 0 to 999, as AIME's answers are; leading zeros and an `m+n=` before it do not count.

    Anything else in the box, an equal fraction too, is wrong: the contest asks for the number.
    """
    expected, found = whole(gold), whole(answer)
    if expected is None:
        return Grade(None, f"the gold answer {gold[:40]!r} is not a whole number from 0 to 999")
    return Grade(found == expected)


def whole(text: str) -> int | None:
    """The whole number from 0 to 999 that a box holds, None if it holds anything else."""
    found = _WHOLE.fullmatch(_SPACING.sub("", _unwrapped(text)))
    return int(found[1]) if found else None


class _NoVerdict(Exception):
    """Raised in a worker; its message crosses the process boundary."""


def _workers() -> anyio.CapacityLimiter:
    """The slots of this event loop, whose worker processes anyio ends together with the loop."""
    try:
        return _slots.get()
    except LookupError:
        _slots.set(anyio.CapacityLimiter(WORKERS))
        return _slots.get()


def _compare(gold: str, answer: str, cpu_seconds: int) -> bool:
    """In a worker: whether the answer is the gold.

    Raises:
        _NoVerdict: the gold cannot be read, or a comparison failed and no other succeeded.
    """
    from eval.scorers.expressions import Unreadable, equal

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # The signal is not handled, so that the kernel ends the process even in the midst of a multiplication.
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        return equal(gold, answer)
    except Unreadable as error:
        raise _NoVerdict(str(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _same_base(gold: str, answer: str) -> bool | None:
    """Whether both are the same digits in the same base; None where neither names a base."""
    expected, found = _digits_and_base(gold), _digits_and_base(answer)
    return None if expected is None and found is None else expected == found


def _digits_and_base(text: str) -> tuple[str, str] | None:
    found = _BASE.fullmatch(_SPACING.sub("", _unwrapped(text)))
    if not found:
        return None
    base = found["braced"] if found["braced"] is not None else found["bare"]
    return found["digits"].upper(), base.lower()


def _unwrapped(text: str) -> str:
    r"""Without `\text{...}` and the like around words."""
    return _WRAPPED.sub(r"\1", text)
