"""Odd answers in whole runs: each costs one row at most, spent credit stops the run, streaming changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.generate.stage import generate
from pipelines.records import Prompt, from_table
from pipelines.rehearsal.server import rehearsing
from pipelines.runner.options import RequestOptions
from pipelines.runs import RunFolder
from pipelines.teachers.ledger import Ledger
from tests.commands import command
from tests.pipelines.reply_bodies import FOR_GOOD, KEPT, STOPS, Kind, good, refused
from tests.pipelines.reply_kinds import KINDS
from tests.pipelines.reply_server import serving_beside

ROOT = Path(__file__).parents[2]


def at(url: str, *sets: str) -> dict[str, Any]:
    return {"base_url": url, "model": "m", "sets": tuple(f"teachers.flags.{text}" for text in sets)}


def answered(run: RunFolder) -> list[dict[str, Any]]:
    ledger = Ledger(run.path / "ledger.sqlite")
    used = ledger.used_keys()  # the first question's
    rows = [row for row in ledger.rows() if row["key"] not in used]
    ledger.close()
    return rows


def test_every_readable_oddity_goes_into_the_ledger_and_none_is_lost(new_run: Callable[..., RunFolder]) -> None:
    kept = [one for one in KINDS if one.ending is KEPT and len(one.plays) == 1]
    turns = iter(kept * 9)
    with serving_beside(lambda body: next(turns)) as server:
        run = new_run(harmful=16, benign=6, **at(server.url))
        done = generate(run)
    assert (done.failed, len(answered(run))) == (0, done.asked)
    assert done.asked >= len(kept)
    assert done.kept == len(run.read("responses"))


def test_one_refused_input_is_one_failed_row(new_run: Callable[..., RunFolder]) -> None:
    flagged = Kind("", "", (refused(403, "your input was flagged"),), FOR_GOOD)
    texts: list[str] = []

    def choose(body: dict[str, Any]) -> Kind:
        text = str(body["messages"][-1]["content"])
        return flagged if texts[0] in text else Kind("", "", (good(),), KEPT)

    with serving_beside(choose) as server:
        run = new_run(harmful=4, benign=2, **at(server.url))
        texts += [one.text for one in from_table(Prompt, run.read("prompts")) if one.kind == "harmful"]
        done = generate(run)
    refusals = sum(texts[0] in str(body["messages"][-1]["content"]) for body in server.bodies)
    assert refusals == done.failed >= 1
    ledger = Ledger(run.path / "ledger.sqlite")
    assert ledger.failures() == [("HTTP 403: your input was flagged", refusals)]
    ledger.close()
    assert len(answered(run)) == len(server.bodies) - refusals


def test_spent_credit_stops_the_command_at_once(new_run: Callable[..., RunFolder]) -> None:
    spent = Kind("", "", (refused(402, "Insufficient Balance"),), STOPS)
    with serving_beside(lambda body: spent) as server:
        run = new_run(harmful=12, benign=8, **at(server.url, "in_flight=2"))
        words = ["--runs", str(run.path.parent), "generate", run.name]
        done = command(words, ROOT, {**os.environ, "COLUMNS": "200"})
    assert done.returncode != 0
    assert "Insufficient Balance" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert 1 <= len(server.bodies) <= 4


def test_streaming_changes_no_key_and_no_answer(new_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    with rehearsing() as url:
        options = {**at(url, "stream=true"), "model": "rehearsal-r1"}
        streamed = new_run(harmful=3, benign=2, **options)
        generate(streamed)
        rows = answered(streamed)
        plain = RunFolder(tmp_path / "plain")
        plain.path.mkdir()
        for name in ("run.yaml", "prompts.parquet", "manifest.json"):
            text = (streamed.path / name).read_bytes()
            (plain.path / name).write_bytes(text.replace(b"stream: true", b"stream: false"))
        done = generate(plain, RequestOptions(reuse=(streamed.path / "ledger.sqlite",)))
        assert done.asked == 0
        (plain.path / "ledger.sqlite").unlink()
        generate(plain)
    assert all(row["first_token_s"] is not None for row in rows)
    again = answered(plain)
    assert all(row["first_token_s"] is None for row in again)
    same = ("key", "content", "reasoning_content", "reasoning", "finish_reason", "input_tokens", "output_tokens")
    assert [[row[name] or "" for name in same] for row in rows] == [[row[name] or "" for name in same] for row in again]
