"""The Batch API as a transport: over real HTTP, killed at its worst moments, nothing submitted twice, nothing lost."""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import openai
import pytest
from aiohttp import web

from pipelines.errors import Interrupted, UserError
from pipelines.generate.plan import Ask, plan, prompts_of
from pipelines.generate.stage import generate
from pipelines.records import Response, from_table
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.teacher import Teacher
from pipelines.teachers.batch.results import Results, take_in
from pipelines.teachers.batch.stage import BatchOutcome, BatchRules, run_batches
from pipelines.teachers.batch.store import opened
from pipelines.teachers.ledger import Ledger, Reply

ROOT = Path(__file__).parents[2]
QUICK = BatchRules(poll_s=0.05, longest_poll_s=0.2, settle_s=0.1, call_timeout_s=5)
NAME = "flags"


@pytest.fixture
def begin(new_run: Callable[..., RunFolder]) -> Callable[..., RunFolder]:
    """A run of ten harmful prompts in three variants, asked of one teacher: 30 requests."""

    def with_options(url: str, **teacher: Any) -> RunFolder:
        sets = tuple(f"teachers.{NAME}.{key}={json.dumps(value)}" for key, value in teacher.items())
        variants = ("direct", "improved", "short")
        return new_run(harmful=10, benign=0, variants=variants, base_url=url, model="rehearsal-r1", sets=sets)

    return with_options


def asks_of(run: RunFolder) -> Iterator[Ask]:
    return plan(load_config(run), prompts_of(run), teacher=NAME)


def teacher_of(run: RunFolder) -> Teacher:
    return load_config(run).teachers[NAME]


def submit(
    run: RunFolder,
    url: str,
    rules: BatchRules = QUICK,
    asks: list[Ask] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> BatchOutcome:
    ledger = Ledger(run.path / "ledger.sqlite")
    ledger.forget_failures()
    try:
        return run_batches(run, NAME, teacher_of(run), url, asks or asks_of(run), ledger, stopped, rules)
    finally:
        ledger.close()


def counts(url: str) -> dict[str, int]:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return dict(json.load(answer)["batches"])


def replies(run: RunFolder) -> dict[str, Reply]:
    ledger = Ledger(run.path / "ledger.sqlite")
    try:
        return {ask.key: reply for ask in asks_of(run) if (reply := ledger.get(ask.key)) is not None}
    finally:
        ledger.close()


def failures(run: RunFolder) -> list[tuple[str, int]]:
    ledger = Ledger(run.path / "ledger.sqlite")
    try:
        return ledger.failures()
    finally:
        ledger.close()


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
        assert submit(run, url, replace(QUICK, call_timeout_s=1)) == BatchOutcome(1, 30, 0)
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
        told = counts(url)
    assert (done.answered, done.failed) == (30, 0)
    assert done.batches == told["begun"] > 1
    assert told["lines"] == 30 + told["repeats"]
    assert 0 < told["repeats"] < 30 * (done.batches - 1)


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


def test_a_malformed_request_fails_alone_and_keeps_its_reason(begin: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = begin(url)
        asks = list(asks_of(run))
        asks[7] = replace(asks[7], sampling=json.dumps({"max_tokens": 0}))
        assert submit(run, url, asks=asks) == BatchOutcome(1, 29, 1)
        assert counts(url)["lines"] == 30
    ((reason, count),) = failures(run)
    assert count == 1
    assert reason.startswith("HTTP 400: max_tokens")
    assert asks[7].key not in replies(run)


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


def test_a_full_queue_at_the_provider_is_met_with_smaller_batches_one_after_the_other(
    begin: Callable[..., RunFolder],
) -> None:
    with rehearsing(RehearsalSettings(batch_queue=10)) as url:
        run = begin(url)
        done = submit(run, url)
        assert counts(url)["lines"] == 30
    assert (done.answered, done.failed) == (30, 0)
    assert done.batches == 4  # 30 and 15 are too many, 8 and 7 are not


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


def test_a_batch_cancelled_at_the_provider_keeps_what_it_has_and_is_not_begun_again(
    begin: Callable[..., RunFolder],
) -> None:
    with rehearsing(RehearsalSettings(batch_delay=30)) as url:
        run = begin(url)

        def cancel() -> None:
            with openai.OpenAI(base_url=url, api_key="none") as client:
                while not (begun := client.batches.list().data):
                    time.sleep(0.05)
                client.batches.cancel(begun[0].id)

        canceller = threading.Thread(target=cancel)
        canceller.start()
        assert submit(run, url) == BatchOutcome(1, 0, 30)
        canceller.join()
        assert counts(url)["begun"] == 1
    assert [(reason.split(":")[0], count) for reason, count in failures(run)] == [("batch_cancelled", 30)]


def test_a_provider_that_goes_away_and_comes_back_is_waited_for(begin: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        port = int(url.removesuffix("/v1").rsplit(":", 1)[1])
        run = begin(url)
        with pytest.raises(Interrupted):
            submit(run, url, stopped=lambda: counts(url)["begun"] == 1)
    with pytest.raises(UserError, match=r"could not be reached for 0.5 s .*saferthoughts generate new"):
        submit(run, url, replace(QUICK, patience_s=0.5))
    # The one that comes back has forgotten the batch, which must not be taken for leave to pay again.
    with (
        rehearsing(RehearsalSettings(port=port)) as back,
        pytest.raises(UserError, match=r"does not know batch batch_\d+: is the key that of another project"),
    ):
        submit(run, back)


def test_a_server_without_the_batch_api_is_one_clear_line(begin: Callable[..., RunFolder], aside: str) -> None:
    run = begin(aside)
    with pytest.raises(UserError, match=r"has no Batch API \(HTTP 404 for /v1/batches\).*transport=requests"):
        submit(run, aside)


@pytest.fixture
def aside() -> Iterator[str]:
    """A server that answers 404 to everything."""
    ready, leave = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        ready.set()
        while not leave.is_set():
            await asyncio.sleep(0.02)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    yield urls[0]
    leave.set()
    thread.join()


def test_an_unknown_model_is_told_once_before_anything_is_paid(begin: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = begin(url, model="nobody")
        with pytest.raises(UserError, match=r"refused batch batch_\d+: model_not_found: The model 'nobody' does not"):
            submit(run, url)
        assert counts(url)["lines"] == 0


def test_a_missing_key_is_told_before_anything_is_written(
    begin: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    run = begin("http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")
    with pytest.raises(UserError, match="export NO_SUCH_KEY"):
        submit(run, "http://127.0.0.1:9/v1")
    assert not (run.path / "batches.sqlite").exists()


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


def test_answers_are_read_line_by_line_and_a_broken_one_is_no_answer(tmp_path: Path) -> None:
    def line(key: str, body: Any) -> str:
        return json.dumps({"custom_id": key, "response": {"status_code": 200, "body": body}}, ensure_ascii=False)

    # Separators that are no line ends here, though str.splitlines takes them for such.
    text = "one\u2028two\x85three"
    message = {"role": "assistant", "content": text, "reasoning": "because"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    good = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    path = tmp_path / "answers"
    rows = [line("good", good), line("empty", {"choices": []}), line("none", None)]
    path.write_text("\n".join(rows), encoding="utf-8")
    ledger, results = Ledger(tmp_path / "ledger.sqlite"), Results()
    take_in(path, ledger, "m", None, 9.0, {"good", "empty", "none"}, results)
    assert ledger.get("good") == Reply(text, None, "because", "stop", 3, 4, None, 9.0)
    assert (results.answered, sorted(results.again), results.failed) == (1, ["empty", "none"], {})
    path.write_text(rows[0][:40], encoding="utf-8")
    take_in(path, ledger, "m", None, 9.0, {"good", "empty", "none"}, results)
    assert results.odd().startswith("1 lines of its answers cannot be read (line 1: ")
    ledger.close()
