"""Ledgers that are no ledgers, or not usable ones: one clear line each, exit code 2, and nothing changed."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.options import Options
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.ledger_file import LedgerError
from pipelines.teachers.reply import DamagedReply, Reply
from saferthoughts.cli.app import app


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE answers(question TEXT)")
    db.close()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (lambda path: path.write_bytes(b"not a database at all" * 500), "damaged, or no ledger"),
    "short garbage": (lambda path: path.write_bytes(b"x"), "cut off: it has 1 bytes"),
    "empty": (lambda path: path.write_bytes(b""), "cut off: it has 0 bytes"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "cut off"),
    "a header only": (lambda path: os.truncate(path, 100), "cut off: it has only 100 bytes"),
    "zeros inside": (
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)), "damaged"
    ),
    "a newer one": (newer, "written by a newer version"),
    "another program's": (foreign, "damaged, or no ledger"),
    "a folder": (folder, "and is a folder"),
}  # fmt: skip


@pytest.mark.parametrize("stage", ["generate", "judge", "ledger show", "ledger prune"])
@pytest.mark.parametrize(("spoil", "expected"), ODD.values(), ids=ODD)
def test_an_odd_ledger_is_one_clear_line(
    judged: RunFolder, spoil: Callable[[Path], object], expected: str, stage: str
) -> None:
    change(judged, Options(judges=("rehearsal-judge",)))
    spoil(judged.path / "ledger.sqlite")
    tables = {path: path.read_bytes() for path in judged.path.glob("*.parquet")}
    if stage == "ledger show" and expected in ("written by a newer version",):
        return  # what it shows has not changed
    done = CliRunner().invoke(app, ["--runs", str(judged.path.parent), *stage.split(), judged.name])
    assert isinstance(done.exception, UserError), done.output
    assert done.exception.exit_code == 2
    assert expected in str(done.exception)
    assert "\n" not in str(done.exception)
    assert {path: path.read_bytes() for path in judged.path.glob("*.parquet")} == tables


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process that holds the ledger for writing."""
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.kill()


def test_a_ledger_that_another_process_holds_is_told(judged: RunFolder) -> None:
    with held(judged.path / "ledger.sqlite"), pytest.raises(LedgerError, match="Another process holds the ledger"):
        generate(judged)


@pytest.fixture
def read_only(judged: RunFolder) -> Iterator[RunFolder]:
    """The run on a read-only file system, where that can be made."""
    where = str(judged.path)
    if os.geteuid() or subprocess.run(["mount", "--bind", where, where], check=False, capture_output=True).returncode:
        pytest.skip("needs to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True, capture_output=True)
        yield judged
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_read_only_run_can_be_looked_into_and_not_worked_on(read_only: RunFolder) -> None:
    for words in (["ledger", "show", read_only.name], ["ledger", "export", read_only.name, "/dev/shm/out.jsonl"]):
        done = CliRunner().invoke(app, ["--runs", str(read_only.path.parent), *words])
        assert done.exit_code == 0, done.exception
    Path("/dev/shm/out.jsonl").unlink()
    with pytest.raises(LedgerError, match=r"cannot be (written|opened|used)"):
        generate(read_only)


POISON = {
    "no JSON": "{",
    "another form": json.dumps({"text": "hello"}),
    "null tokens": json.dumps(
        {"content": "x", "reasoning_content": None, "reasoning": None, "finish_reason": "stop", "input_tokens": None,
         "output_tokens": 1, "cost": None, "latency_s": 0.1}
    ),
    "parts": json.dumps(
        {"content": [{"type": "text"}], "reasoning_content": None, "reasoning": None, "finish_reason": "stop",
         "input_tokens": 1, "output_tokens": 1, "cost": None, "latency_s": 0.1}
    ),
    "deep": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("text", POISON.values(), ids=POISON)
def test_a_damaged_answer_is_set_aside_and_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.put("good", "m", Reply("a", None, None, "stop", 1, 1, None, 0.1))
    ledger.put("bad", "m", Reply("a", None, None, "stop", 1, 1, None, 0.1))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET reply = ? WHERE key = 'bad'", (text,))
    db.close()
    assert [row["key"] for row in ledger.rows()] == ["good"]
    assert ledger.get("bad") is None
    assert not ledger.has("bad")
    assert [key for key, _ in ledger.set_aside()] == ["bad"]
    assert ledger.has("good")
    ledger.close()


def test_a_run_with_a_damaged_answer_asks_for_it_again_and_says_so(
    judged: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = judged.read("responses").drop_columns(["latency_s"])
    with sqlite3.connect(judged.path / "ledger.sqlite") as db:
        (key,) = db.execute("SELECT key FROM answers LIMIT 1").fetchone()
        db.execute("UPDATE answers SET reply = '{}' WHERE key = ?", (key,))
    db.close()
    assert generate(judged).asked == 1
    assert f"The answer {key}" in capsys.readouterr().err
    assert judged.read("responses").drop_columns(["latency_s"]).equals(before)


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": None}, {"output_tokens": -1}, {"output_tokens": 1.5}, {"input_tokens": True},
        {"input_tokens": 2**70}, {"content": ["a"]}, {"finish_reason": None}, {"cost": float("nan")},
        {"latency_s": float("inf")}, {"reasoning": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_reply_that_the_ledger_could_not_give_back_cannot_be_made(fields: dict[str, object]) -> None:
    values: dict[str, object] = {
        "content": "a", "reasoning_content": None, "reasoning": None, "finish_reason": "stop", "input_tokens": 1,
        "output_tokens": 1, "cost": None, "latency_s": 0.1,
    }  # fmt: skip
    with pytest.raises(DamagedReply):
        Reply(**(values | fields))  # type: ignore[arg-type]


def test_an_answer_that_breaks_a_rule_of_the_tables_is_not_dropped_silently(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match="NOT NULL"):
        ledger.put("k", None, Reply("a", None, None, "stop", 1, 1, None, 0.1))  # type: ignore[arg-type]


def test_refusals_are_remembered_until_they_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.refuse("k", "flagged")
    ledger.forget_failures()
    assert ledger.refusal("k") == "flagged"
    assert ledger.refusals() == [("flagged", 1)]
    assert ledger.forget_refusals() == 1
    assert ledger.refusal("k") is None
