"""The request runner: every row ends as exactly one outcome, whatever its work raises and wherever it is run."""

import asyncio
import errno
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen

import pytest

from pipelines.command_line import typed_command
from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.rehearsal.server import rehearsing
from pipelines.runner.outcomes import Control, Ending, NotAttempted, Outcome
from pipelines.runner.scheduler import _MOST_WAITING, STRANGE_TO_STOP, Lane, in_thread, run_rows
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.options import Options
from pipelines.teachers.client import TeacherError


def outcomes_of(
    rows: Any, work: Callable[[int], Awaitable[Any]], control: Control, at_once: int = 4
) -> list[Outcome[int, Any]]:
    batches = in_thread(lambda: run_rows([Lane(rows, at_once)], work, control), control)
    return [outcome for batch in batches for outcome in batch]


def test_every_row_ends_once_as_a_result_or_with_its_reason() -> None:
    async def work(row: int) -> int:
        await asyncio.sleep(0)
        if row % 3 == 1:
            raise TeacherError("no answer")
        if row % 3 == 2:
            raise NotAttempted("nobody to ask")
        return 10 * row

    found = sorted(outcomes_of(range(99), work, Control()), key=lambda item: item.row)
    assert [item.row for item in found] == list(range(99))
    assert [item.result for item in found[::3]] == [10 * row for row in range(0, 99, 3)]
    assert {(item.state, item.reason) for item in found[1::3]} == {("failed", "no answer")}
    assert {(item.state, item.reason) for item in found[2::3]} == {("not attempted", "nobody to ask")}


ODD = [
    ValueError("odd"),
    KeyError("odd"),
    RecursionError("odd"),
    MemoryError("odd"),
    AssertionError("odd"),
    StopIteration("odd"),
    StopAsyncIteration("odd"),
    TimeoutError("odd"),
    asyncio.CancelledError("odd"),
    SystemExit("odd"),
    KeyboardInterrupt("odd"),
    OSError(errno.ECONNRESET, "odd"),
    ExceptionGroup("odd", [ValueError("odd")]),
    type("Unheard", (BaseException,), {})("odd"),
]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_whatever_a_row_raises_is_its_own_failure(error: BaseException) -> None:
    async def work(row: int) -> int:
        if row == 5:
            raise error
        return row

    found = outcomes_of(range(20), work, Control())
    failed = [item for item in found if item.state == "failed"]
    assert len(found) == 20
    assert [item.row for item in failed] == [5]
    # A coroutine turns StopIteration into a RuntimeError by itself.
    assert type(error).__name__ in failed[0].reason or "StopIteration" in failed[0].reason
    assert "odd" in failed[0].reason or "StopIteration" in failed[0].reason


def test_the_same_fault_again_and_again_stops_with_the_text_of_the_first() -> None:
    control = Control()

    async def work(row: int) -> int:
        raise ValueError(f"row {row} is odd")

    found = outcomes_of(range(1000), work, control, at_once=1)
    assert control.ending is not None
    assert control.ending.text.endswith("the first: ValueError: row 0 is odd")
    assert sum(item.state == "failed" for item in found) == STRANGE_TO_STOP


def test_a_row_that_is_done_in_between_lets_the_run_go_on() -> None:
    control = Control()

    async def work(row: int) -> int:
        if row % STRANGE_TO_STOP:
            raise ValueError("odd")
        return row

    assert len(outcomes_of(range(200), work, control, at_once=1)) == 200
    assert control.ending is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.IntegrityError("NOT NULL constraint failed"),
        UserError("The ledger is damaged."),
    ],
    ids=["full", "read-only", "sqlite full", "constraint", "user"],
)
def test_what_cannot_be_kept_ends_the_run_with_one_line(error: Exception) -> None:
    control = Control()

    async def work(row: int) -> int:
        if row == 7:
            raise error
        return row

    found = outcomes_of(range(1000), work, control, at_once=1)
    assert [item.state for item in found] == ["done"] * 7 + ["not attempted"] * (len(found) - 7)
    assert control.ending is not None
    assert control.ending.kind == "broken"
    assert "\n" not in control.ending.text


def test_rows_under_way_come_back_as_not_attempted_when_the_run_is_stopped() -> None:
    control = Control()
    under_way = 0

    async def work(row: int) -> int:
        nonlocal under_way
        if row < 4:
            return row
        under_way += 1
        if under_way == 8:
            threading.Thread(target=control.end, args=[Ending("signal", "SIGTERM")]).start()
        await asyncio.sleep(3600)
        return row

    found = outcomes_of(iter(range(10**9)), work, control, at_once=8)
    assert sorted(item.row for item in found) == list(range(12))
    assert [item.state for item in sorted(found, key=lambda item: item.row)] == ["done"] * 4 + ["not attempted"] * 8


def test_work_that_blocks_its_thread_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runner.scheduler._GRACE_S", 0.2)
    control, blocked, release = Control(), threading.Event(), threading.Event()

    async def work(row: int) -> int:
        blocked.set()
        release.wait(60)
        return row

    def stop() -> None:
        blocked.wait(60)
        control.end(Ending("signal"))

    threading.Thread(target=stop).start()
    assert outcomes_of(range(10), work, control) == []
    release.set()


def test_what_the_rows_raise_is_raised() -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise UserError("prompts.parquet is broken")

    async def work(row: int) -> int:
        return row

    with pytest.raises(UserError, match="is broken"):
        outcomes_of(rows(), work, Control())


def test_rows_are_pulled_no_faster_than_outcomes_are_taken() -> None:
    pulled = 0

    def rows() -> Iterator[int]:
        nonlocal pulled
        for row in range(100_000):
            pulled += 1
            yield row

    async def work(row: int) -> int:
        return row

    control = Control()
    batches = in_thread(lambda: run_rows([Lane(rows(), 8)], work, control), control)
    taken, most = 0, 0
    for batch in batches:
        taken += len(batch)
        most = max(most, pulled - taken)
    assert taken == 100_000
    # A list is under construction, two wait, and one is in our hands.
    assert most <= 5 * _MOST_WAITING


def test_a_slow_lane_does_not_hold_up_another() -> None:
    gate = threading.Event()

    async def work(row: int) -> int:
        while row < 0 and not gate.is_set():
            await asyncio.sleep(0.001)
        return row

    control = Control()
    lanes = [Lane(range(-3, 0), 1), Lane(range(50), 2)]
    found: list[int] = []
    for batch in in_thread(lambda: run_rows(lanes, work, control), control):
        found += [item.row for item in batch]
        if len(found) == 50:
            gate.set()
    assert found[-3:] == [-3, -2, -1]


def test_leaving_the_rows_in_the_middle_ends_the_thread() -> None:
    async def work(row: int) -> int:
        return row

    control = Control()
    batches = in_thread(lambda: run_rows([Lane(iter(range(10**9)), 2)], work, control), control)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "request-runner"]


@pytest.mark.parametrize("where", ["in a running loop", "in a worker thread", "in a loop of a worker thread"])
def test_a_stage_works_wherever_it_is_called(judged: RunFolder, where: str) -> None:
    change(judged, Options(judges=("rehearsal-judge",)))

    async def inside() -> int:
        return judge(judged).responses

    if where == "in a running loop":
        assert asyncio.run(inside()) == 78
        return
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: asyncio.run(inside()) if "loop" in where else judge(judged).responses)
        assert done.result() == 78


def test_teachers_are_asked_first_inside_a_running_loop_as_well(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=2, benign=1, variants=("direct",), base_url=url, model="rehearsal-r1")

        async def inside() -> int:
            return generate(run).kept

        assert asyncio.run(inside()) == 3
        with urlopen(url.removesuffix("/v1") + "/stats") as answer:
            assert json.load(answer)["requests"] == 4


def test_an_error_of_the_asynchronous_side_is_raised_here() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise UserError("no")

    batches = in_thread(broken, Control())
    assert next(batches) == 1
    with pytest.raises(UserError, match="no"):
        next(batches)


def test_the_command_that_goes_on_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/usr/bin/saferthoughts", "run", "mine", "--teachers", "my file.yaml", "--max-cost", "2"]
    monkeypatch.setattr("sys.argv", words)
    line = "saferthoughts run mine --teachers 'my file.yaml'"
    assert typed_command("saferthoughts generate mine") == f"{line} --max-cost 2"
    assert typed_command("saferthoughts generate mine", "--max-cost 4") == f"{line} --max-cost 4"
    monkeypatch.setattr("sys.argv", [*words[:3], "--max-cost=2", "--base-url", "http://me:pass@host/v1"])
    assert (
        typed_command("x", "--max-cost 4") == "saferthoughts run mine --base-url 'http://(a key)@host/v1' --max-cost 4"
    )
    monkeypatch.setattr("sys.argv", [*words[:3], "--api-key-env", "sk-abcdefghijklmnop"])
    assert "abcdef" not in typed_command("x")


def test_without_a_command_line_the_stage_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/jupyter", "kernel"])
    assert typed_command("saferthoughts judge mine", "--max-cost 4") == "saferthoughts judge mine --max-cost 4"
