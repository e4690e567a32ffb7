"""Limits and budgets: never more in a minute than allowed, never more spent than capped."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from pipelines.errors import Incomplete, UserError
from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.repairs.stage import repair
from pipelines.runner.options import Caps, RequestOptions
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.config import load_config, save_config
from pipelines.settings.options import Options
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.limits import Budget as Spending
from pipelines.teachers.limits import RateLimits
from pipelines.teachers.reply import Reply

PRICE = "{input: 1.0, output: 10.0}"


def reply(tokens: int, cost: float) -> Reply:
    return Reply("a", None, None, "stop", 0, tokens, cost, 0.1)


def at(url: str, *sets: str) -> dict[str, Any]:
    return {"base_url": url, "model": "rehearsal-r1", "sets": tuple(f"teachers.flags.{text}" for text in sets)}


def test_requests_beyond_the_minutes_share_wait() -> None:
    async def seconds_of_six_more() -> float:
        limits = RateLimits(requests_per_minute=600, tokens_per_minute=None)
        began = time.monotonic()
        for _ in range(606):
            await limits.admit([])
        return time.monotonic() - began

    # A minute's worth at once, then ten a second.
    assert 0.5 <= asyncio.run(seconds_of_six_more()) < 60


def test_tokens_that_an_answer_took_are_held_against_those_that_follow() -> None:
    async def waits() -> bool:
        limits = RateLimits(requests_per_minute=None, tokens_per_minute=2400)
        taken = await limits.admit([{"role": "user", "content": "x" * 350}])
        limits.settle(taken, Reply("a", None, None, "stop", 100, 2000, None, 0.1))
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(limits.admit([]), 0.2)
        except TimeoutError:
            return True
        return False

    assert asyncio.run(waits())


def test_a_budget_counts_what_is_under_way() -> None:
    async def admitted() -> int:
        budget = Spending(max_cost=1.0, max_tokens=None, cost=0.5, tokens=50, answers=5)
        count = 0
        while True:
            try:
                if not await asyncio.wait_for(budget.admit(), 0.1):
                    return count
            except TimeoutError:
                return count
            count += 1

    # 0.10 each: five more fit beside the 0.50 that is spent.
    assert asyncio.run(admitted()) == 5


def test_a_spent_budget_admits_nothing() -> None:
    async def admits() -> bool:
        return await Spending(None, 100, cost=0.0, tokens=100, answers=1).admit()

    assert asyncio.run(admits()) is False


def test_a_failed_request_gives_its_share_back() -> None:
    async def admits_again() -> bool:
        budget = Spending(max_cost=0.2, max_tokens=None, cost=0.1, tokens=10, answers=1)
        assert await budget.admit()
        budget.settle(None)
        return await budget.admit()

    assert asyncio.run(admits_again())


def test_a_run_stops_at_its_cap_and_goes_on_with_a_higher_one(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=12, benign=8, **at(url, f"price={PRICE}", "in_flight=4"))
        with pytest.raises(Incomplete, match=r"Stopped at the budget.*go on with a higher cap"):
            generate(run, RequestOptions(Caps(max_cost=0.03)))
        spent = Ledger(run.path / "ledger.sqlite").totals()
        assert 0.015 < spent.cost <= 0.03 * 1.1
        assert not run.table_path("responses").exists()
        done = generate(run, RequestOptions(Caps(max_cost=10.0)))
    assert (done.kept, done.failed) == (80, 0)
    assert done.asked == 68 - (spent.answers - 1), "the first question is no row"
    assert done.cost > spent.cost


def test_tokens_can_be_capped_without_a_price(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=12, benign=8, **at(url, "in_flight=4"))
        with pytest.raises(Incomplete, match="budget"):
            generate(run, RequestOptions(Caps(max_tokens=3000)))
    totals = Ledger(run.path / "ledger.sqlite").totals()
    assert 1000 < totals.input_tokens + totals.output_tokens <= 3300


def test_a_cap_in_dollars_needs_a_price(new_run: Callable[..., RunFolder]) -> None:
    run = new_run(harmful=2, benign=1, **at("http://127.0.0.1:9/v1"))
    with pytest.raises(UserError, match="--max-cost needs prices"):
        generate(run, RequestOptions(Caps(max_cost=1.0)))


def test_two_servers_share_the_work_and_one_that_is_down_is_left_out(
    new_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    with rehearsing() as down:
        pass
    slow = RehearsalSettings(delay=0.1)
    with rehearsing(slow) as one, rehearsing(slow) as two:
        entry = f"lab: {{model: rehearsal-r1, base_urls: ['{one}', '{down}', '{two}'], in_flight: 4}}\n"
        (tmp_path / "teachers.yaml").write_text(entry)
        run = new_run(harmful=12, benign=8, teacher="lab", teachers=tmp_path / "teachers.yaml")
        done = generate(run)
        asked = [stats(url)["requests"] for url in (one, two)]
    assert (done.kept, done.failed) == (80, 0)
    assert sum(asked) == 68 + 2, "and a first question to each"
    assert min(asked) >= 20


def stats(url: str) -> dict[str, Any]:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return dict(json.load(answer))


def test_answers_of_another_run_are_taken_over_for_nothing(
    new_run: Callable[..., RunFolder], judged: RunFolder
) -> None:
    run = new_run(harmful=12, benign=6, seed=5)
    done = generate(run, RequestOptions(reuse=(judged.path / "ledger.sqlite",)))
    assert (done.asked, done.kept) == (0, 78)
    assert Ledger(run.path / "ledger.sqlite").totals().input_tokens == 0
    assert run.read("responses").equals(judged.read("responses"))


def test_reusing_what_is_no_ledger_is_one_clear_line(new_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    run = new_run(harmful=2, benign=1)
    with pytest.raises(UserError, match=r"There is no ledger .* to reuse"):
        generate(run, RequestOptions(reuse=(tmp_path / "nothing.sqlite",)))
    (tmp_path / "odd.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(UserError, match="no ledger that can be reused"):
        generate(run, RequestOptions(reuse=(tmp_path / "odd.sqlite",)))


def test_judging_and_repair_take_over_what_another_run_was_answered(judged: RunFolder) -> None:
    change(judged, Options(judges=("rehearsal-judge",)))
    other = RunFolder(shutil.copytree(judged.path, judged.path.parent / "other"))
    judge(other)
    repair(other)
    with rehearsing() as url:
        # Where they would be asked is no part of the requests.
        for name, entry in (config := load_config(judged)).judge_teachers.items():
            there = entry.model_copy(update={"base_url": url, "embedded": False})
            config = config.model_copy(update={"judge_teachers": {**config.judge_teachers, name: there}})
        teachers = {
            name: entry.model_copy(update={"base_url": url, "embedded": False})
            for name, entry in config.teachers.items()
        }
        save_config(judged, config.model_copy(update={"teachers": teachers}))
        reusing = RequestOptions(reuse=(other.path / "ledger.sqlite",))
        judge(judged, reusing)
        repair(judged, reusing)
        assert stats(url)["requests"] == 0
    for name in ("verdicts", "responses", "repairs"):
        assert judged.read(name).equals(other.read(name))
