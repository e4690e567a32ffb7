"""What a provider of batches refuses, cancels or answers wrongly: one clear line, or asked again, and nothing lost."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from pipelines.errors import Interrupted, UserError
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.runs import RunFolder
from pipelines.teachers.batch.results import Results, take_in
from pipelines.teachers.batch.stage import BatchOutcome
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.reply import Reply
from tests.pipelines.batches import QUICK, asks_of, counts, failures, replies, submit
from tests.pipelines.batches import begin as begin


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


def test_a_full_queue_at_the_provider_is_met_with_smaller_batches_one_after_the_other(
    begin: Callable[..., RunFolder],
) -> None:
    with rehearsing(RehearsalSettings(batch_queue=10)) as url:
        run = begin(url)
        done = submit(run, url)
        assert counts(url)["lines"] == 30
    assert (done.answered, done.failed) == (30, 0)
    assert done.batches == 4  # 30 and 15 are too many, 8 and 7 are not


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
