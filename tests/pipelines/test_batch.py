"""The Batch API as a transport: over real HTTP, killed at its worst moments, nothing submitted twice, nothing lost."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import openai
import pytest

from pipelines.errors import Interrupted, UserError
from pipelines.generate.stage import generate
from pipelines.records import Response, from_table
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.runs import RunFolder
from pipelines.teachers.batch.stage import BatchOutcome
from pipelines.teachers.batch.store import opened
from tests.pipelines.batches import NAME, QUICK, ROOT, asks_of, counts, failures, replies, submit
from tests.pipelines.batches import begin as begin


def start_and_kill(run: RunFolder, url: str, when: Callable[[], bool]) -> None:
    """Submit from a process of its own, and kill -9 it as soon as `when` holds."""
    code = (
        "import sys; from pathlib import Path; from pipelines.teachers.batch.stage import BatchRules, run_batches\n"
        "from pipelines.settings.config import load_config; from pipelines.teachers.ledger import Ledger\n"
        "from pipelines.generate.plan import plan, prompts_of; from pipelines.runs import RunFolder\n"
        "run = RunFolder(Path(sys.argv[1])); config = load_config(run)\n"
        "asks = plan(config, prompts_of(run), teacher='flags'); ledger = Ledger(run.path / 'ledger.sqlite')\n"
        "rules = BatchRules(poll_s=0.05, longest_poll_s=0.2, call_timeout_s=60)\n"
        "run_batches(run, 'flags', config.teachers['flags'], sys.argv[2], asks, ledger, lambda: False, rules)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run.path), url], cwd=ROOT) as process:
        deadline = time.monotonic() + 300
        while not when():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def test_rows_equal_those_of_single_requests_at_half_the_cost(begin: Callable[..., RunFolder], tmp_path: Path) -> None:
    def rows(run: RunFolder) -> list[Response]:
        return [replace(row, latency_s=0, cost=None) for row in from_table(Response, run.read("responses"))]

    price = {"input": 1.0, "output": 2.0}
    with rehearsing() as url:
        run = begin(url, price=price, extra_body={"n": 1})
        done = submit(run, url)
        generated = generate(run)
        with urlopen(url.removesuffix("/v1") + "/stats") as answer:
            assert json.load(answer)["requests"] == 0
        batched = rows(run)
        costs = [row["cost"] for row in run.read("responses").to_pylist()]
        (run.path / "ledger.sqlite").rename(tmp_path / "batched.sqlite")
        again = generate(run)
        assert counts(url)["begun"] == 1
    assert done == BatchOutcome(batches=1, answered=30, failed=0)
    assert (generated.kept, generated.asked, again.asked) == (30, 0, 30)
    assert batched == rows(run)
    single = [row["cost"] for row in run.read("responses").to_pylist()]
    assert costs == pytest.approx([cost / 2 for cost in single], rel=1e-9)
    assert generated.cost == pytest.approx(sum(costs), rel=1e-9)
    assert again.cost > sum(single) > 0  # the question that is asked first costs too


def test_running_again_submits_nothing(begin: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = begin(url)
        submit(run, url)
        first = replies(run)
        assert submit(run, url) == BatchOutcome(0, 0, 0)
        assert counts(url) == {"uploads": 1, "begun": 1, "lines": 30, "repeats": 0}
    assert replies(run) == first
    assert list((run.path / "batches").iterdir()) == []


def test_kill_while_polling_then_the_same_batch_is_fetched(begin: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(batch_delay=4)) as url:
        run = begin(url)

        def polling() -> bool:
            if not (run.path / "batches.sqlite").exists():
                return False
            with sqlite3.connect(run.path / "batches.sqlite", timeout=120) as db:
                try:
                    return bool(db.execute("SELECT count(*) FROM batches WHERE batch_id NOT NULL").fetchone()[0])
                except sqlite3.OperationalError:
                    return False  # the table is about to be made

        start_and_kill(run, url, polling)
        assert replies(run) == {}
        assert submit(run, url) == BatchOutcome(1, 30, 0)
        assert counts(url) == {"uploads": 1, "begun": 1, "lines": 30, "repeats": 0}
    assert len(replies(run)) == 30


def test_kill_before_the_batch_is_known_then_it_is_found_and_not_submitted_twice(
    begin: Callable[..., RunFolder],
) -> None:
    with rehearsing(RehearsalSettings(lose_batches=1)) as url:
        run = begin(url)
        start_and_kill(run, url, lambda: counts(url)["begun"] == 1)
        assert submit(run, url) == BatchOutcome(1, 30, 0)
        assert counts(url) == {"uploads": 1, "begun": 1, "lines": 30, "repeats": 0}


def test_a_lost_record_of_batches_costs_nothing(begin: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(lose_batches=1)) as url:
        run = begin(url)
        start_and_kill(run, url, lambda: counts(url)["begun"] == 1)
        for path in run.path.glob("batches.sqlite*"):
            path.unlink()
        assert submit(run, url) == BatchOutcome(1, 30, 0)
        assert counts(url)["begun"] == 1


def test_an_answer_to_the_creation_that_is_lost_begins_no_second_batch(begin: Callable[..., RunFolder]) -> None:
    # Among others that the account had before, more than a page of them.
    with rehearsing(RehearsalSettings(lose_batches=121)) as url:
        run = begin(url)
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=0.02) as client:
            line = {"custom_id": "a", "body": {"model": "rehearsal-r1", "messages": [{"role": "user", "content": "a"}]}}
            upload = client.with_options(timeout=120).files.create(file=json.dumps(line).encode(), purpose="batch")
            while counts(url)["begun"] < 120:
                with pytest.raises(openai.APITimeoutError):
                    client.batches.create(
                        input_file_id=upload.id, endpoint="/v1/chat/completions", completion_window="24h"
                    )
        assert submit(run, url, replace(QUICK, call_timeout_s=3)) == BatchOutcome(1, 30, 0)
        assert counts(url)["begun"] == 121


def test_an_upload_that_fails_is_repeated(begin: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(fail_uploads=2)) as url:
        run = begin(url)
        assert submit(run, url) == BatchOutcome(1, 30, 0)
        assert counts(url)["uploads"] == 3


def test_expired_and_failed_lines_are_asked_again_and_others_are_not(begin: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(hang=0.3, fail_500=0.1, fail_429=0.1, cut=0.1)) as url:
        run = begin(url)
        done = submit(run, url, replace(QUICK, attempts=20))
        output = counts(url)
    assert (done.answered, done.failed) == (30, 0)
    assert done.batches == output["begun"] > 1
    assert output["lines"] == 30 + output["repeats"]
    assert 0 < output["repeats"] < 30 * (done.batches - 1)


def test_what_always_expires_fails_at_last_with_its_reason_and_is_asked_by_the_next_call(
    begin: Callable[..., RunFolder],
) -> None:
    with rehearsing(RehearsalSettings(hang=1)) as url:
        run = begin(url)
        assert submit(run, url, replace(QUICK, attempts=2)) == BatchOutcome(2, 0, 30)
        assert counts(url)["lines"] == 60
        reason = "batch_expired: This request could not be executed before the completion window expired. (2 times)"
        assert failures(run) == [(reason, 30)]
        assert submit(run, url, replace(QUICK, attempts=1)) == BatchOutcome(1, 0, 30)
        assert counts(url)["lines"] == 90


def test_files_keep_to_the_bounds_and_a_key_is_submitted_once(begin: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = begin(url)
        asks = list(asks_of(run)) * 2
        assert submit(run, url, replace(QUICK, max_requests=8), asks=asks) == BatchOutcome(4, 30, 0)
        assert counts(url) == {"uploads": 4, "begun": 4, "lines": 30, "repeats": 0}
        shutil.rmtree(run.path)
        small = begin(url, sampling={"seed": 5})
        size = max(len(ask.messages[0]["content"]) for ask in asks_of(small)) * 2 + 2000
        done = submit(small, url, replace(QUICK, max_bytes=size))
    assert done.answered == 30
    assert done.batches > 1


def test_stopping_says_how_to_go_on_and_the_batch_goes_on(begin: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(batch_delay=4.0)) as url:
        run = begin(url)
        with pytest.raises(Interrupted, match=r"go on at the provider: batch_\d+\. Fetch .*saferthoughts generate new"):
            submit(run, url, stopped=lambda: counts(url)["begun"] == 1)
        with pytest.raises(Interrupted, match="saferthoughts generate new"):
            submit(run, url, stopped=_interrupting())
        assert submit(run, url) == BatchOutcome(1, 30, 0)
        assert counts(url)["begun"] == 1


def _interrupting() -> Callable[[], bool]:
    """What Ctrl-C does, while waiting."""

    def interrupt() -> bool:
        raise KeyboardInterrupt

    return interrupt


def test_another_endpoint_is_not_asked_for_what_a_batch_holds_already(begin: Callable[..., RunFolder]) -> None:
    with rehearsing(RehearsalSettings(batch_delay=0.5)) as url, rehearsing() as other:
        run = begin(url)
        with pytest.raises(Interrupted):
            submit(run, url, stopped=lambda: counts(url)["begun"] == 1)
        with pytest.raises(UserError, match=f"A batch of teacher 'flags' at {url} holds requests that"):
            submit(run, other)
        assert counts(other)["uploads"] == 0
        assert submit(run, url) == BatchOutcome(1, 30, 0)


def test_two_processes_cannot_submit_the_same_requests(begin: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = begin(url)
        with opened(run, NAME), pytest.raises(UserError, match="Another process is at work on the batches of"):
            submit(run, url)
        assert counts(url)["uploads"] == 0
