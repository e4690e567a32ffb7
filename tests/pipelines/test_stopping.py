"""Stopping a command from outside: every signal, to the process or its group, ends every stage soon and cleanly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.config import load_config, save_config
from pipelines.settings.options import Options
from pipelines.teachers.ledger import Ledger
from tests.commands import Command
from tests.pipelines.first_answers import answer_first

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals process groups")

IN_FLIGHT = 4
# A stop takes a second or two; on a machine with twelve others at work, some more.
SOON_S = 120


def redirected(run: RunFolder, url: str) -> None:
    """Have every teacher and judge of the run asked at `url`."""
    config = load_config(run)
    there = {"base_url": url, "embedded": False, "in_flight": IN_FLIGHT}
    kinds = {
        kind: {name: entry.model_copy(update=there) for name, entry in getattr(config, kind).items()}
        for kind in ("teachers", "judge_teachers")
    }
    save_config(run, config.model_copy(update=kinds))
    answer_first(run)


def prepared(run: RunFolder, stage: str) -> list[Path]:
    """Make the run ready for a stage that has everything to ask; gives the tables that the stage writes."""
    change(run, Options(judges=("rehearsal-judge",)))
    if stage in ("generate", "run"):
        (run.path / "ledger.sqlite").unlink()
        for name in ("responses", "failed", "judgements", "verdicts"):
            run.table_path(name).unlink()
        return [run.table_path("responses")]
    if stage == "judge":
        for name in ("judgements", "verdicts"):
            run.table_path(name).unlink()
        return [run.table_path("verdicts")]
    return [run.table_path("repairs")]


def in_flight(url: str) -> int:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return int(json.load(answer)["in_flight"])


@contextmanager
def started(run: RunFolder, stage: str, url: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    """The real command, in a process group of its own, once its requests are under way."""
    words = ["--runs", str(run.path.parent), stage, run.name]
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    fresh = [*before, sys.executable, "-m", "saferthoughts", *words]
    with subprocess.Popen(fresh, text=True, **given) if before else Command(words, **given) as process:
        try:
            deadline = time.monotonic() + 300
            while in_flight(url) < 1:
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                assert time.monotonic() < deadline, "nothing was asked"
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def printed_by(process: subprocess.Popen[str]) -> str:
    """All that the command printed, once it has ended."""
    began = time.monotonic()
    text, _ = process.communicate(timeout=300)
    assert time.monotonic() - began < SOON_S
    return text


CASES = [
    ("generate", signal.SIGINT, True),
    ("generate", signal.SIGTERM, True),
    ("generate", signal.SIGHUP, True),
    ("judge", signal.SIGINT, True),
    ("judge", signal.SIGTERM, True),
    ("judge", signal.SIGHUP, False),
    ("repair", signal.SIGINT, False),
    ("repair", signal.SIGTERM, True),
    ("repair", signal.SIGHUP, True),
    ("run", signal.SIGTERM, True),
]


@pytest.mark.parametrize(
    ("stage", "number", "group"),
    CASES,
    ids=[f"{stage} {number.name} {'group' if group else 'process'}" for stage, number, group in CASES],
)
def test_a_signal_ends_a_stage_and_names_the_command_that_goes_on(
    judged: RunFolder, stage: str, number: signal.Signals, group: bool
) -> None:
    tables = prepared(judged, stage)
    with rehearsing(RehearsalSettings(delay=3600)) as url:
        redirected(judged, url)
        with started(judged, stage, url) as process:
            (os.killpg if group else os.kill)(process.pid, number)
            text = printed_by(process)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    again = f"saferthoughts --runs {judged.path.parent} {stage} {judged.name}"
    assert text.splitlines()[-1].endswith(f"kept in the ledger; go on with: {again}")
    assert not [table for table in tables if table.exists()]
    assert [path.name for path in judged.path.iterdir() if path.is_dir()] == []


def test_a_signal_ends_a_first_question(judged: RunFolder) -> None:
    prepared(judged, "generate")
    with rehearsing(RehearsalSettings(delay=3600)) as url:
        redirected(judged, url)
        (judged.path / "ledger.sqlite").unlink()
        with started(judged, "generate", url) as process:
            process.terminate()
            text = printed_by(process)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert "Go on with: saferthoughts" in text.splitlines()[-1]


def test_timeout_ends_a_run_that_it_started(judged: RunFolder) -> None:
    """`timeout` signals its command and then the group that it made for it: the same request twice."""
    prepared(judged, "judge")
    with rehearsing(RehearsalSettings(delay=3600)) as url:
        redirected(judged, url)
        with started(judged, "judge", url, "timeout", "--preserve-status", "3600") as process:
            os.kill(process.pid, signal.SIGTERM)
            text = printed_by(process)
    assert process.returncode == 130, text
    assert "go on with" in text.splitlines()[-1]


def test_a_signal_that_is_ignored_stays_ignored(judged: RunFolder) -> None:
    prepared(judged, "judge")
    with rehearsing(RehearsalSettings(delay=3600)) as url:
        redirected(judged, url)
        with started(judged, "judge", url, "nohup") as process:
            os.kill(process.pid, signal.SIGHUP)
            os.kill(process.pid, signal.SIGINT)
            text = printed_by(process)
    assert process.returncode == 130, text


@pytest.mark.parametrize("stage", ["judge", "repair"])
def test_what_was_answered_before_a_signal_is_not_asked_again(judged: RunFolder, stage: str) -> None:
    prepared(judged, stage)
    act: Callable[[RunFolder], Any] = judge if stage == "judge" else repair
    with rehearsing(RehearsalSettings(delay=0.1)) as url:
        redirected(judged, url)
        before = Ledger(judged.path / "ledger.sqlite").totals().answers
        with started(judged, stage, url) as process:
            ledger = Ledger(judged.path / "ledger.sqlite")
            while ledger.totals().answers < before + 5 and process.poll() is None:
                time.sleep(0.02)
            ledger.close()
            process.terminate()
            printed_by(process)
        act(judged)
        with urlopen(url.removesuffix("/v1") + "/stats") as answer:
            asked = json.load(answer)["requests"]
        answered = Ledger(judged.path / "ledger.sqlite").totals().answers - before
        # Of repair, the teacher and the judge have as many in flight each.
        assert asked - answered <= 2 * IN_FLIGHT


def test_generation_in_a_worker_thread_needs_no_signal_handlers(judged: RunFolder) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(generate, judged).result().kept == 78
