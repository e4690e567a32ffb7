"""Generation, with the real engine and the rehearsal teacher over HTTP: nothing lost, nothing asked twice."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from pipelines.errors import Interrupted, UserError
from pipelines.generate.stage import generate
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.runs import RunFolder
from pipelines.teachers.ledger import Ledger
from tests.commands import Command
from tests.pipelines.conftest import Gate
from tests.pipelines.reply_bodies import RETRIED, Kind
from tests.pipelines.reply_server import serving_beside


def at(url: str, **teacher: Any) -> dict[str, Any]:
    """Options of a run whose one teacher is the rehearsal server at `url`."""
    sets = [f"teachers.flags.{key}={json.dumps(value)}" for key, value in teacher.items()]
    return {"base_url": url, "model": "rehearsal-r1", "sets": tuple(sets)}


def stats(url: str) -> dict[str, Any]:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return dict(json.load(answer))


def responses_of(run: RunFolder) -> list[Response]:
    return from_table(Response, run.read("responses"))


def test_every_planned_response_comes_back_in_its_variant(judged: RunFolder) -> None:
    responses = responses_of(judged)
    assert Counter(response.variant for response in responses) == {
        "direct": 18, "realsafe": 12, "improved": 12, "short": 12, "template": 12, "nocot": 12
    }  # fmt: skip
    assert all(response.reasoning for response in responses if response.variant != "nocot")
    assert {response.reasoning_source for response in responses if response.variant == "improved"} == {
        "reasoning_content"
    }
    assert {response.reasoning_source for response in responses if response.variant == "short"} == {"inline"}
    assert {(r.reasoning, r.input_tokens) for r in responses if r.variant == "nocot"} == {("", 0)}


def test_no_response_carries_the_instruction_it_was_asked_with(judged: RunFolder) -> None:
    prompts = {prompt.prompt_id: prompt for prompt in from_table(Prompt, judged.read("prompts"))}
    for response in responses_of(judged):
        assert "User request:" not in prompts[response.prompt_id].text
        assert "Begin your thinking with the risk" not in response.reasoning + response.answer


@pytest.mark.parametrize("style", ["reasoning", "inline", "missing_opener"])
def test_reasoning_is_kept_wherever_the_server_puts_it(new_run: Callable[..., RunFolder], style: str) -> None:
    with rehearsing(RehearsalSettings.model_validate({"style": style})) as url:
        run = new_run(harmful=3, benign=1, variants=("direct", "improved"), **at(url))
        generate(run)
    responses = responses_of(run)
    assert {response.reasoning_source for response in responses} == {style}
    assert all(response.reasoning and response.answer for response in responses)
    assert not any("think>" in response.reasoning + response.answer for response in responses)


def test_running_again_asks_nothing_and_changes_nothing(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=4, benign=2, **at(url))
        first = generate(run)
        table = run.table_path("responses").read_bytes()
        again = generate(run)
        asked = stats(url)["requests"]
    # One more: the teacher's first question, which is no row.
    assert (first.asked, again.asked, asked) == (4 * 5 + 2, 0, 4 * 5 + 2 + 1)
    assert run.table_path("responses").read_bytes() == table


def test_an_edited_and_shuffled_prompt_file_asks_only_for_the_edited_prompt(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=4, benign=2, **at(url))
        generate(run)
        prompts = from_table(Prompt, run.read("prompts"))[::-1]
        edited = next(index for index, prompt in enumerate(prompts) if prompt.kind == "harmful")
        prompts[edited] = replace(prompts[edited], text=prompts[edited].text + " Please.", prompt_id="edited")
        run.write("prompts", to_table(Prompt, prompts))
        assert generate(run).asked == 5


def test_rate_limits_errors_cuts_and_hangs_lose_no_row(new_run: Callable[..., RunFolder]) -> None:
    faults = RehearsalSettings(fail_429=0.1, fail_500=0.1, cut=0.05, hang=0.03, retry_after=0)
    with rehearsing(faults) as url:
        run = new_run(harmful=30, benign=20, **at(url, attempt_timeout_s=1.0, retries=12))
        done = generate(run)
        output = stats(url)["faults"]
    assert (done.kept, done.failed) == (200, 0)
    assert set(output) == {"429", "500", "cut", "hang"}, "the run should have met every kind of fault"


def test_a_row_that_finally_fails_is_kept_with_its_error_and_asked_again(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(fail_500=1.0)) as url:
        run = new_run(harmful=2, benign=1, variants=("improved", "nocot"), **at(url, retries=1))
        done = generate(run)
        assert (done.planned, done.kept, done.failed) == (5, 2, 3)
        failed = run.read("failed").to_pylist()
        assert all("HTTP 500" in row["error"] for row in failed)
    with rehearsing(RehearsalSettings(port=int(url.split(":")[2].split("/")[0]))):
        again = generate(run)
    assert (again.kept, again.failed, again.asked) == (5, 0, 3)


def test_an_unknown_model_stops_the_run_at_once(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=30, benign=10, **{**at(url, in_flight=2), "model": "gpt-9"})
        with pytest.raises(UserError, match=r"Unknown model at .* 'gpt-9'"):
            generate(run)
        assert stats(url)["requests"] == 1
    assert not run.table_path("responses").exists()


def test_a_missing_key_is_told_before_anything_starts(
    new_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    run = new_run(harmful=2, benign=1, teacher="deepseek")
    with pytest.raises(UserError, match="export DEEPSEEK_API_KEY="):
        generate(run)


def test_the_key_is_sent_and_stays_out_of_every_file(
    new_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with rehearsing() as url:
        run = new_run(harmful=2, benign=1, api_key_env="MY_KEY", **at(url))
        generate(run)
    written = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert b"MY_KEY" in written
    assert b"sk-very-secret" not in written


def command(run: RunFolder) -> subprocess.Popen[str]:
    words = ["--runs", str(run.path.parent), "generate", run.name]
    return Command(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def wait_for_answers(run: RunFolder, count: int) -> None:
    ledger = Ledger(run.path / "ledger.sqlite")
    deadline = time.monotonic() + 300
    while ledger.totals().answers < count:
        assert time.monotonic() < deadline, "no answers arrived"
        time.sleep(0.05)
    ledger.close()


def test_kill_9_loses_only_what_was_in_flight_and_leaves_no_process(
    new_run: Callable[..., RunFolder], gate: Gate
) -> None:
    with rehearsing() as url:
        run = new_run(harmful=40, benign=20, **at(url, in_flight=8))
        gate.left = 61  # the first question is one of them
        with command(run) as killed:
            wait_for_answers(run, 61)
            assert psutil.Process(killed.pid).children() == []
            killed.send_signal(signal.SIGKILL)
        gate.left = None
        done = generate(run)
        repeats = stats(url)["repeats"]
    assert (done.kept, done.failed) == (260, 0)
    # What was under way, and the first question.
    assert repeats <= 9
    assert [path.name for path in run.path.iterdir() if path.is_dir()] == []


def test_ctrl_c_stops_soon_and_says_how_to_go_on(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(lambda body: Kind("", "", (None,), RETRIED)) as server:
        run = new_run(harmful=10, benign=10, **at(server.url, in_flight=10))
        with command(run) as stopped:
            deadline = time.monotonic() + 300
            while len(server.bodies) < 10 and time.monotonic() < deadline:
                time.sleep(0.05)
            began = time.monotonic()
            stopped.send_signal(signal.SIGINT)
            assert stopped.stderr is not None
            output = stopped.stderr.read()
            code = stopped.wait(300)
    assert code == 130
    assert time.monotonic() - began < 500, "it should not wait for the answers in flight"
    assert f"go on with: saferthoughts --runs {run.path.parent} generate {run.name}" in output
    assert "Traceback" not in output
    assert not run.table_path("responses").exists()


def test_two_processes_cannot_work_on_one_run(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(delay=1.0)) as url:
        run = new_run(harmful=5, benign=5, **at(url, in_flight=1))
        with command(run) as first:
            # The first is that of the first question, which is asked before the run is taken.
            wait_for_answers(run, 2)
            with pytest.raises(UserError, match="Another process is at work"):
                generate(run)
            os.kill(first.pid, signal.SIGINT)


def test_interrupted_is_an_error_of_its_own_with_its_own_exit_code() -> None:
    assert Interrupted("x").exit_code == 130
