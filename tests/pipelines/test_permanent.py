"""Requests that a teacher refuses for good: remembered, left out up to a share, told; all others are asked again."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipelines.errors import Incomplete, UserError
from pipelines.generate.stage import generate
from pipelines.records import Prompt, from_table
from pipelines.runs import RunFolder
from pipelines.teachers.ledger import Ledger
from saferthoughts.cli.app import app
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run

THOUGHT = "<think>\nThat would hurt people, so no.\n</think>\n\nSorry, I can't help with that."


def run_at(new_run: Callable[..., RunFolder], url: str, harmful: int = 20, **options: Any) -> RunFolder:
    sets = ("teachers.flags.retries=0", "teachers.flags.in_flight=1")
    return new_run(
        harmful=harmful, benign=0, variants=("direct",), base_url=url, model="m", sets=sets, seed=3, **options
    )


def refusing(texts: list[str], status: int = 403) -> Callable[[dict[str, Any]], str | int]:
    return lambda body: status if body["messages"][-1]["content"] in texts else THOUGHT


def texts_of(run: RunFolder) -> list[str]:
    return [prompt.text for prompt in from_table(Prompt, run.read("prompts"))]


def test_a_refused_prompt_is_left_out_told_and_not_asked_again(
    new_run: Callable[..., RunFolder], scripted: Any
) -> None:
    refused: list[str] = []
    with scripted(refusing(refused)) as own:
        run = run_at(new_run, own.url)
        refused.append(texts_of(run)[10])
        message = words_of(Run(run).generate())
        asked = len(own.requests)
        again = words_of(Run(run).generate())
        assert len(own.requests) == asked == 20
    assert "19 of 20 responses" in message
    assert "1 of 20 are refused for good and left out (HTTP 403: scripted 403)" in message
    assert "1 of 20 are refused for good" in again
    (row,) = run.read("failed").to_pylist()
    assert (row["permanent"], row["error"]) == (True, "HTTP 403: scripted 403")
    entry = run.stage("generate")
    assert entry is not None
    assert entry["failures"] == {"rows": 1, "permanent": 1, "reasons": [{"text": "HTTP 403: scripted 403", "rows": 1}]}


def test_more_refusals_than_allowed_stop_and_name_what_helps(new_run: Callable[..., RunFolder], scripted: Any) -> None:
    refused: list[str] = []
    with scripted(refusing(refused)) as own:
        run = run_at(new_run, own.url)
        refused += texts_of(run)[5:8]
        with pytest.raises(Incomplete, match=r"15.0%, more than the 5.0% of --max-failed.*--max-failed 15%") as error:
            words_of(Run(run).generate())
        assert "again: saferthoughts generate" not in str(error.value)
        assert "ledger forget new" in str(error.value)
        assert "3 of 20 are refused for good" in words_of(Run(run).generate(max_failed=0.15))
        refused.clear()
        done = CliRunner().invoke(app, ["--runs", str(run.path.parent), "ledger", "forget", "new"])
        assert "3 refused requests will be asked once more" in done.output
        assert generate(run).failed == 0


def test_transient_failures_are_asked_again_and_permanent_ones_are_not(
    new_run: Callable[..., RunFolder], scripted: Any
) -> None:
    refused: list[str] = []
    down: list[str] = []

    def script(body: dict[str, Any]) -> str | int:
        return 503 if body["messages"][-1]["content"] in down else refusing(refused)(body)

    with scripted(script) as own:
        run = run_at(new_run, own.url)
        refused.append(texts_of(run)[10])
        down += texts_of(run)[12:14]
        with pytest.raises(Incomplete, match=r"3 failed.*Ask 2 of them again: saferthoughts generate new"):
            words_of(Run(run).generate())
        down.clear()
        asked = len(own.requests)
        assert "19 of 20 responses" in words_of(Run(run).generate())
        assert len(own.requests) == asked + 2


def test_a_refusal_of_everything_is_not_remembered(new_run: Callable[..., RunFolder], scripted: Any) -> None:
    wrong = [True]
    with scripted(lambda body: 403 if wrong[0] else THOUGHT) as own:
        run = run_at(new_run, own.url, harmful=3)
        with pytest.raises(Incomplete, match="Ask those again"):
            words_of(Run(run).generate())
        wrong[0] = False
        assert generate(run).failed == 0
    assert Ledger(run.path / "ledger.sqlite").refusals() == []


def test_an_older_table_of_failures_has_no_column_for_it(judged: RunFolder) -> None:
    failed = judged.read("failed")
    judged.write("failed", failed.drop_columns(["permanent"]))
    assert isinstance(judged.read("failed"), pa.Table)
    assert generate(judged).failed == 0


def test_the_release_and_the_report_tell_what_was_refused(new_run: Callable[..., RunFolder], scripted: Any) -> None:
    refused: list[str] = []
    with scripted(refusing(refused)) as own:
        run = run_at(new_run, own.url, harmful=40, judges=("rules",))
        refused.append(texts_of(run)[20])
        done = CliRunner().invoke(app, ["--runs", str(run.path.parent), "run", "new"])
    assert done.exit_code == 0, done.output
    card = (run.path / "release" / "README.md").read_text(encoding="utf-8")
    assert "1 failed" in card
    assert "HTTP 403: scripted 403" in card
    assert "HTTP 403: scripted 403" in (run.path / "report.html").read_text(encoding="utf-8")
    lineage = json.loads((run.path / "release" / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["failures"]["permanent"] == 1


@pytest.mark.parametrize("text", ["-1", "101%", "lots", "nan", ""])
def test_a_share_that_is_none_is_refused(judged: RunFolder, text: str) -> None:
    done = CliRunner().invoke(app, ["--runs", str(judged.path.parent), "generate", judged.name, f"--max-failed={text}"])
    assert isinstance(done.exception, UserError)
    assert f"it got '{text}'" in str(done.exception)
