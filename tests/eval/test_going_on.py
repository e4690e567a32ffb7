"""An evaluation that is killed goes on where it was: a real process, a real SIGKILL, an endpoint that counts."""

import json
import resource
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.request import urlopen

import pytest

from eval.models.inspect_models import Target
from eval.run.inspect_session import inspecting
from eval.run.planning import Wanted
from eval.run.results import read_results
from eval.run.stage import evaluate
from pipelines.errors import UserError
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.settings.teacher import Teacher
from tests.commands import Command, command

IN_FLIGHT = 6
QUESTIONS = 80


def stats(url: str) -> dict[str, Any]:
    with urlopen(f"{url.removesuffix('/v1')}/stats") as reply:
        return dict(json.load(reply))


def stopped(words: list[str], folder: Path, url: str, requests: int, number: int) -> tuple[int, str]:
    """Run a command until the endpoint has had so many requests, then send it a signal; its exit code and errors."""
    process = Command(words, cwd=folder, stdout=PIPE, stderr=PIPE)
    while stats(url)["requests"] < requests:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    code, _, errors = process.end(number)
    return code, errors


def test_killed_and_interrupted_evaluation_asks_again_at_most_what_was_in_flight(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with rehearsing(RehearsalSettings(delay=0.2)) as url:
        teachers = tmp_path / "teachers.yaml"
        entry = {"mine": {"base_url": url, "model": "rehearsal-r1", "in_flight": IN_FLIGHT}}
        teachers.write_text(json.dumps(entry), encoding="utf-8")
        words = ["eval", "mine", "--teachers", str(teachers), "--task", "refusal", "--output", str(output)]
        stopped(words, tmp_path, url, 25, signal.SIGKILL)
        killed = stats(url)
        assert not (output / "results.json").exists()
        code, errors = stopped(words, tmp_path, url, killed["requests"] + 25, signal.SIGINT)
        assert code == 130
        assert errors.splitlines()[-1].startswith(f"saferthoughts: Interrupted; what was answered is in {output}")
        assert "Traceback" not in errors
        assert stats(url)["repeats"] <= IN_FLIGHT
        again = command(words, tmp_path)
        assert again.returncode == 0, again.stderr
        after = stats(url)
    assert after["distinct"] == QUESTIONS
    assert after["repeats"] <= 2 * IN_FLIGHT
    assert "from an earlier call" in again.stderr
    results = read_results(output)
    assert [(rate.n, rate.errored) for rate in results.rates if not rate.group] == [(QUESTIONS, 0)]
    # One log is left, in which all of it is.
    assert len(list((output / "logs").rglob("*.eval"))) == 1


@pytest.mark.parametrize("limit", [60_000, 400_000])
def test_file_that_may_not_grow_is_one_line_and_the_same_command_goes_on(limit: int, tmp_path: Path) -> None:
    with rehearsing(RehearsalSettings()) as url:
        entry = {"mine": {"base_url": url, "model": "rehearsal-r1", "in_flight": IN_FLIGHT}}
        (tmp_path / "teachers.yaml").write_text(json.dumps(entry), encoding="utf-8")
        words = ["eval", "mine", "--teachers", "teachers.yaml", "--task", "refusal", "--output", "out"]
        done = command(words, tmp_path, limits={resource.RLIMIT_FSIZE: limit})
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("saferthoughts: The answers cannot be written into out/logs/")
        assert last.endswith(f"go on with: saferthoughts {' '.join(words)}")
        before = stats(url)["requests"]
        again = command(words, tmp_path)
        assert again.returncode == 0, again.stderr
        after = stats(url)
    assert after["distinct"] == QUESTIONS
    # It stopped at the first refusal instead of asking on for answers that cannot be kept.
    assert before < QUESTIONS
    assert not list(tmp_path.rglob("*.trace*"))


def cut(log: Path) -> None:
    """As a machine leaves it that lost its power."""
    log.write_bytes(log.read_bytes()[:1000])


def rewritten(log: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The archive made anew, with other members."""
    with zipfile.ZipFile(log) as archive:
        members = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(log, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def flipped(log: Path) -> None:
    """One byte within the compressed content of a sample is another."""
    content = bytearray(log.read_bytes())
    with zipfile.ZipFile(log) as archive:
        member = next(one for one in archive.infolist() if one.filename.startswith("samples/"))
    at = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[at] ^= 0xFF
    log.write_bytes(content)


TEARS: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "empty": lambda log: log.write_bytes(b"") and None,
    "no members": lambda log: rewritten(log, lambda name, content: None),
    "broken bytes": flipped,
    "no header": lambda log: rewritten(
        log, lambda name, content: None if "header" in name or "start" in name else content
    ),
    "garbage sample": lambda log: rewritten(
        log, lambda name, content: b"{" if name.startswith("samples/") else content
    ),
    "garbage header": lambda log: rewritten(log, lambda name, content: b"\0" if name == "header.json" else content),
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with rehearsing(RehearsalSettings()) as url:
        yield url


@pytest.fixture(scope="module")
def evaluated(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation wrote; no test may change it."""
    folder = tmp_path_factory.mktemp("whole") / "eval"
    evaluate([mine(endpoint)], ONE, folder)
    return folder


ONE = Wanted(tasks=("refusal",), limit=1)


def mine(url: str) -> Target:
    return Target("target", teacher=Teacher(model="rehearsal-r1", base_url=url), name="mine")


@pytest.mark.parametrize("tear", TEARS)
def test_torn_log_is_set_aside_told_and_made_again(
    tear: str, endpoint: str, evaluated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(evaluated, tmp_path / "eval")
    [log] = (output / "logs").rglob("*.eval")
    TEARS[tear](log)
    (output / "results.json").write_text("{garbage", encoding="utf-8")
    before = stats(endpoint)
    again = evaluate([mine(endpoint)], ONE, output)
    after = stats(endpoint)
    assert [after[name] - before[name] for name in ("requests", "repeats")] == [4, 4]
    assert [one.answer for one in again.answers] == [one.answer for one in read_results(evaluated).answers]
    printed = capfd.readouterr().err
    assert f"{log.name} is torn (" in printed
    assert f"and now called {log.stem}.broken" in printed
    assert read_results(output).answers == again.answers


def test_two_evaluations_do_not_write_into_one_folder(tmp_path: Path) -> None:
    target = Target("target", teacher=Teacher(model="rehearsal-r1", base_url="http://127.0.0.1:1/v1"), name="mine")
    with inspecting(tmp_path / "logs" / ".inspect"), pytest.raises(UserError, match=f"Another .* into {tmp_path}"):
        evaluate([target], Wanted(tasks=("refusal",)), tmp_path)
