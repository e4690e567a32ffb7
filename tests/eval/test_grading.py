"""Final answers are graded by what they mean; a grader that hangs or dies gives no verdict, and the next one does."""

import json
import time
from pathlib import Path

import anyio
import pytest

from eval.scorers.grading import Grade, grade, grade_many, grade_whole

MATH500 = Path(__file__).resolve().parents[3] / "shared" / "data" / "math500.jsonl"
# More than any process of the grader may compute.
ENDLESS = "10^{10^{10^{10}}}"
SETTLED = [
    (r"\frac{14}{3}", "14/3", True),
    (r"\frac{14}{3}", r"\dfrac{28}{6}", True),
    ("0.5", r"\frac12", True),
    (r"9\sqrt{3}", r"3\sqrt{27}", True),
    (r"\left(5, \frac{\pi}{2}\right)", r"(5, \pi/2)", True),
    (r"2 < x < 3", "(2,3)", True),
    (r"90\%", "90", True),
    (r"\text{Evelyn}", "Evelyn", True),
    ("4", "5", False),
    ("x+1", "x-1", False),
    ("7", "((((", False),
    ("7", "no such number", False),
    # A base counts, in every way of writing it.
    ("52_8", "52_8", True),
    ("52_8", r"52_{8}", True),
    ("52_8", r"52_{\text{8}}", True),
    ("52_8", "52", False),
    ("52_8", "52_9", False),
    ("52", "52_8", False),
    (r"4C_{16}", r"4c_{16}", True),
]


@pytest.fixture(scope="module")
def settled() -> list[Grade]:
    """All at once, and last a gold that is nothing: starting workers is what takes the time."""
    return anyio.run(grade_many, [*((gold, answer) for gold, answer, _ in SETTLED), ("", "7")])


@pytest.mark.parametrize("number", range(len(SETTLED)), ids=[f"{gold} and {answer}" for gold, answer, _ in SETTLED])
def test_answers_are_graded_by_what_they_mean(settled: list[Grade], number: int) -> None:
    assert settled[number] == Grade(SETTLED[number][2])


async def _after_trouble() -> list[Grade]:
    endless = await grade("7", ENDLESS, cpu_seconds=1)
    slow = await grade("7", ENDLESS, wall_seconds=0.5)
    return [endless, slow, await grade("7", "7")]


def test_grader_that_hangs_is_replaced_and_gives_no_verdict() -> None:
    endless, slow, next_one = anyio.run(_after_trouble)
    assert endless == Grade(None, "the comparison took over 1 s of computing or ended its process")
    assert slow == Grade(None, "the comparison did not end in 0.5 s")
    assert next_one == Grade(True)


def test_gold_that_cannot_be_read_gives_no_verdict(settled: list[Grade]) -> None:
    assert settled[-1] == Grade(None, "the gold answer '' cannot be read")


async def _longest_stall(pairs: list[tuple[str, str]]) -> tuple[list[Grade], float]:
    """The grades, and the longest computing of the event loop's thread between two of its turns, in seconds."""
    stall = 0.0

    async def watch() -> None:
        nonlocal stall
        while True:
            before = time.thread_time()
            await anyio.sleep(0.001)
            stall = max(stall, time.thread_time() - before)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        grades = await grade_many(pairs)
        group.cancel_scope.cancel()
    return grades, stall


@pytest.mark.skipif(not MATH500.exists(), reason="needs ../shared/data/math500.jsonl")
def test_every_gold_of_math500_is_its_own_answer() -> None:
    golds = [json.loads(line)["answer"] for line in MATH500.read_text(encoding="utf-8").splitlines()]
    grades, stall = anyio.run(_longest_stall, [(gold, gold) for gold in golds])
    assert [gold for gold, found in zip(golds, grades, strict=True) if found != Grade(True)] == []
    # Computing, not waiting: other processes share the cores. benchmarks/evaluation.py measures the delays.
    assert stall < 0.5


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("33", "33", True),
        ("33", "033", True),
        ("33", r"$\,33$", True),
        ("33", "33.", True),
        ("33", r"\textbf{33}", True),
        ("33", "m + n = 33", True),
        ("0", "000", True),
        ("33", "34", False),
        ("33", "33.0", False),
        ("33", r"\frac{66}{2}", False),
        ("33", "1033", False),
        ("33", "-33", False),
        ("33", "3 or 33", False),
        ("1000", "1000", None),
    ],
)
def test_whole_numbers_are_graded_strictly(gold: str, answer: str, right: bool | None) -> None:
    assert grade_whole(gold, answer).right is right
