"""The generation benchmark: its yardstick is right, its options are read, its contenders run. Nothing here is timed."""

import json
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import generation
from benchmarks.children import ChildFailed, measured
from benchmarks.environments import CURATOR
from benchmarks.generation import BARE, FULL, KEYS, OURS, QUICK, Bench, measure
from benchmarks.latency_server import SEED, prompt_text, serving
from benchmarks.makespan import best_makespan, latency_of
from pipelines.errors import UserError

TINY = generation.Sizes(
    requests=12,
    mean_s=0.01,
    in_flight=4,
    stock_requests=6,
    zero_requests=12,
    zero_rounds=1,
    few=2,
    many=4,
    startups=1,
    long=400,
)


@pytest.mark.parametrize(
    ("latencies", "in_flight", "seconds"),
    [
        ([], 3, 0.0),
        ([2.0, 2.0, 2.0], 1, 6.0),
        ([2.0, 2.0, 2.0], 8, 2.0),
        # 5 takes one place; 1, 1, 1 and 4 follow one another in the other.
        ([5.0, 1.0, 1.0, 1.0, 4.0], 2, 7.0),
        # In another order the same requests fit better.
        ([5.0, 4.0, 1.0, 1.0, 1.0], 2, 6.0),
    ],
)
def test_best_makespan_is_that_of_a_perfect_semaphore(latencies: list[float], in_flight: int, seconds: float) -> None:
    assert best_makespan(latencies, in_flight) == pytest.approx(seconds)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 8))
@settings(max_examples=100)
def test_best_makespan_agrees_with_stepping_through_time(latencies: list[int], in_flight: int) -> None:
    waiting, now = list(latencies), 0
    running: list[int] = []
    while waiting or running:
        running = [end for end in running if end > now]
        while waiting and len(running) < in_flight:
            running.append(now + waiting.pop(0))
        now += bool(waiting or running)
        if running and not waiting:
            now = max(running)
    assert best_makespan(latencies, in_flight) == now


def test_best_makespan_refuses_no_places() -> None:
    with pytest.raises(ValueError, match="in_flight is 0"):
        best_makespan([1.0], 0)


def test_latencies_are_repeatable_heavy_tailed_and_of_their_mean() -> None:
    drawn = [latency_of(2.0, 7, number) for number in range(20_000)]
    assert drawn[:50] == [latency_of(2.0, 7, number) for number in range(50)]
    assert drawn[:50] != [latency_of(2.0, 8, number) for number in range(50)]
    assert sum(drawn) / len(drawn) == pytest.approx(2.0, rel=0.05)
    # A lognormal of sigma 1 exceeds six times its mean in 1.1 % of the draws, an exponential in 0.25 %.
    assert sum(latency > 12 for latency in drawn) / len(drawn) == pytest.approx(0.011, rel=0.25)
    assert latency_of(0.0, 7, 1) == 0.0


def test_quick_is_smaller_in_everything_that_takes_time() -> None:
    for name in (
        "requests",
        "mean_s",
        "stock_requests",
        "zero_requests",
        "zero_rounds",
        "few",
        "many",
        "startups",
        "long",
    ):
        assert getattr(QUICK, name) < getattr(FULL, name)


def test_contenders_meet_the_same_requests_and_each_is_asked_once(tmp_path: Path) -> None:
    with serving() as server:
        bench = Bench(server, TINY, tmp_path, None)
        for name in (OURS, BARE):
            stats = bench.run(name, TINY.requests, TINY.in_flight, TINY.mean_s).stats
            assert (stats.requests, stats.distinct) == (TINY.requests, TINY.requests)
            assert 1 <= stats.peak <= TINY.in_flight
            # No answer can be earlier than its own latency.
            slowest = max(latency_of(TINY.mean_s, SEED, number) for number in range(TINY.requests))
            assert stats.span_s >= slowest
        with pytest.raises(ChildFailed, match="--with-others"):
            bench.run(CURATOR.name, 1, 1)


def test_a_contender_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"exit 3: said before"):
        measured([sys.executable, "-c", "print('said before'); raise SystemExit(3)"], tmp_path, 30)
    with pytest.raises(ChildFailed, match="no end after"):
        measured([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.5)


def test_an_unmeasured_figure_is_null_and_the_last_line_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "QUICK", TINY)
    app = typer.Typer()
    app.command()(generation.main)
    shown = CliRunner().invoke(app, ["--quick", "--section", "zero"])
    assert shown.exit_code == 0
    result = json.loads(shown.stdout.splitlines()[-1])
    assert result["quick"] is True
    assert result["zero_latency_vs_bare_client"] > 0
    assert [key for key in KEYS if result[key] is not None] == [
        "zero_latency_vs_bare_client",
        "zero_latency_cpu_ms",
        "zero_latency_cpu_vs_bare_client",
    ]
    assert "curator 0.1.31 was not measured: needs an environment of its own" in shown.stdout


def test_an_unknown_section_is_told_with_the_choices() -> None:
    with pytest.raises(
        UserError, match=r"Unknown section 'latancy'\. Did you mean 'latency'\? Choose from: latency, zero"
    ):
        measure(["latancy"], TINY, None, None)


def test_prompts_differ_in_their_number_alone() -> None:
    texts = [prompt_text(number) for number in (1, 22)]
    assert [text.partition(": ")[0] for text in texts] == ["Request 1", "Request 22"]
    assert len({text.partition(": ")[2] for text in texts}) == 1
