"""Stored answers scored again: by another guard, on another part, with nothing generated and nothing written over."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from threading import Event
from typing import Any, NamedTuple

import pytest

from eval.models.inspect_models import ModelRoles, Role, Target
from eval.run.planning import Wanted
from eval.run.rescore import rescore
from eval.run.results import Results, read_results
from eval.run.stage import evaluate
from pipelines.errors import Incomplete, UserError
from pipelines.settings.teacher import Teacher
from tests.commands import Command, command

Serving = Callable[..., AbstractContextManager[Any]]


class Evaluated(NamedTuple):
    """An evaluation of one unsafe thought before a refusal, and the endpoint that still answers."""

    folder: Path
    results: Results
    loopback: Any


def script(body: dict[str, Any]) -> str | int | dict[str, Any]:
    """The target thinks badly and refuses; one guard minds, another is down."""
    if body["model"] == "target":
        return {"content": "Sorry.", "reasoning_content": "First they would [detail withheld]."}
    if body["model"] == "down":
        return 400
    if body["model"].startswith("judge-"):
        row = json.loads(body["messages"][-1]["content"].partition("\n\n")[2])["row"]
        verdict = "full_refusal" if body["model"] == "judge-B" else "full_compliance"
        return json.dumps({"row": row, "analysis": "", "compliance": verdict})
    if body["model"] == "slow":
        return "yes"
    return "unsafe\nS1" if "detail withheld" in str(body["messages"]) else "safe"


def guard(url: str, model: str = "guard") -> ModelRoles:
    return ModelRoles(guard=Role(model, Teacher(model=model, base_url=url, retries=0), "llamaguard"))


@pytest.fixture(scope="module")
def evaluated(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    folder = tmp_path_factory.mktemp("evaluated")
    with serving(script) as loopback:
        target = Target("target", teacher=Teacher(model="target", base_url=loopback.url), name="target")
        wanted = Wanted(tasks=("none", "refusal", "xstest"), limit=3)
        yield Evaluated(folder, evaluate([target], wanted, folder), loopback)


def rate(results: Results, task: str) -> tuple[int, float, int]:
    [found] = [one for one in results.rates if one.task == task and not one.group]
    return found.n, found.hits, found.unscored


def test_another_guard_sees_what_rules_did_not_and_nothing_is_generated(evaluated: Evaluated) -> None:
    assert rate(evaluated.results, "none") == (3, 0, 0)
    before = len(evaluated.loopback.of("target"))
    kept = {path: path.read_bytes() for path in evaluated.folder.rglob("*.eval")}
    done = rescore(evaluated.folder, guard(evaluated.loopback.url), "full", ["guard"])
    assert done.folder == evaluated.folder / "rescored-guard-full"
    assert read_results(done.folder) == done.results
    # The thought before the refusal is unsafe. The task without a guard is left out.
    assert [task.name for task in done.results.tasks] == ["none"]
    assert rate(done.results, "none") == (3, 3, 0)
    assert (done.results.tasks[0].roles, done.results.tasks[0].score) == ({"guard": "guard"}, "full")
    assert len(evaluated.loopback.of("target")) == before
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert read_results(evaluated.folder) == evaluated.results
    assert (done.folder / done.results.tasks[0].logs["target"]).exists()


def test_one_log_is_scored_on_the_answer_alone(evaluated: Evaluated) -> None:
    log = evaluated.folder / evaluated.results.tasks[1].logs["target"]
    done = rescore(log, guard(evaluated.loopback.url), "answer", ["guard"])
    assert rate(done.results, "none") == (3, 0, 0)
    assert {one.detail["seen"] for one in done.results.answers} == {"answer"}


def test_guard_that_fails_leaves_answers_unscored_and_says_so(evaluated: Evaluated) -> None:
    with pytest.raises(Incomplete, match=r"3 answers could not be scored: .*scripted 400.*Go on with: "):
        rescore(evaluated.folder, guard(evaluated.loopback.url, "down"), "full", ["guard"])
    found = read_results(evaluated.folder / "rescored-down-full")
    assert rate(found, "none") == (3, 0, 3)
    assert {one.unscored.partition(":")[0] for one in found.answers} == {"the guard failed"}


def test_each_who_scores_has_a_place_of_their_own_and_nothing_is_written_over(evaluated: Evaluated) -> None:
    def judge(name: str) -> Role:
        return Role(name, Teacher(model=f"judge-{name}", base_url=evaluated.loopback.url))

    calm = guard(evaluated.loopback.url, "calm")
    ways: list[tuple[ModelRoles, str, list[str]]] = [
        (calm, "full", ["guard"]),
        (ModelRoles(judge=judge("A")), "full", ["judge"]),
        (ModelRoles(judge=judge("B")), "full", ["judge"]),
        (replace(calm, judge=judge("B")), "full", ["guard", "judge"]),
        (calm, "answer", ["guard"]),
        # Of the same name, and somebody else.
        (
            ModelRoles(judge=replace(judge("A"), teacher=Teacher(model="judge-B", base_url=evaluated.loopback.url))),
            "full",
            ["judge"],
        ),
    ]
    written: dict[Path, bytes] = {}
    for roles, part, by in ways:
        done = rescore(evaluated.folder, roles, part, by)  # type: ignore[arg-type]
        assert all(path.read_bytes() == content for path, content in written.items())
        assert done.folder not in {path.parent for path in written}
        written |= {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
    names = sorted({path.relative_to(evaluated.folder).parts[0] for path in written})
    assert names == [
        "rescored-calm-answer",
        "rescored-calm-full",
        "rescored-calm-full-judge-B",
        "rescored-judge-A",
        "rescored-judge-A-2",
        "rescored-judge-B",
    ]
    judged = {name: rate(read_results(evaluated.folder / name), "xstest") for name in names if "judge" in name}
    assert judged == {
        "rescored-calm-full-judge-B": (3, 3, 0),
        "rescored-judge-A": (3, 0, 0),
        "rescored-judge-A-2": (3, 3, 0),
        "rescored-judge-B": (3, 3, 0),
    }


def test_same_who_scores_again_asks_nobody_for_what_is_kept(evaluated: Evaluated) -> None:
    rescore(evaluated.folder, guard(evaluated.loopback.url, "again"), "full", ["guard"])
    asked = len(evaluated.loopback.of("again"))
    scores = evaluated.folder / "rescored-again-full" / "scores.jsonl"
    # As a full disk leaves the last line.
    scores.write_bytes(scores.read_bytes()[:-20])
    done = rescore(evaluated.folder, guard(evaluated.loopback.url, "again"), "full", ["guard"])
    assert (asked, len(evaluated.loopback.of("again"))) == (3, 4)
    assert rate(done.results, "none") == (3, 3, 0)


def test_rescoring_that_is_stopped_keeps_its_scores_and_goes_on(serving: Serving, tmp_path: Path) -> None:
    waiting = Event()

    async def hold(body: dict[str, Any]) -> None:
        while body["model"] == "slow" and len(loopback.of("slow")) > 3 and not waiting.is_set():
            await asyncio.sleep(0.02)

    with serving(script, hold) as loopback:
        target = Target("target", teacher=Teacher(model="target", base_url=loopback.url), name="target")
        evaluate([target], Wanted(tasks=("none",), limit=8), tmp_path / "eval")
        entry = {"slow": {"base_url": loopback.url, "model": "slow", "in_flight": 2}}
        (tmp_path / "teachers.yaml").write_text(json.dumps(entry), encoding="utf-8")
        words = ["rescore", "eval", "--guard", "slow", "--teachers", "teachers.yaml"]
        process = Command(words, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
        while len(loopback.of("slow")) < 5:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        code, _, errors = process.end(signal.SIGINT)
        assert code == 130
        assert errors.splitlines()[-1].startswith(
            "saferthoughts: Stopped; the scores so far are kept. Go on with: saferth"
        )
        waiting.set()
        done = command(words, tmp_path)
        assert done.returncode == 0, done.stderr
        # Eight answers, and the two that were in flight once more.
        assert len(loopback.of("slow")) <= 8 + 2
    assert rate(read_results(tmp_path / "eval" / "rescored-slow-full"), "none")[0] == 8


def test_nothing_to_score_anew_is_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no results"):
        rescore(tmp_path, ModelRoles(), "full")
    (tmp_path / "x.eval").touch()
    with pytest.raises(UserError, match=r"No results.json above"):
        rescore(tmp_path / "x.eval", ModelRoles(), "full")
    log = evaluated.folder / evaluated.results.tasks[0].logs["target"]
    with pytest.raises(
        UserError, match=r"is scored by a judge; its tasks are refusal, none, xstest\. A guard scores attacks, such"
    ):
        rescore(log, ModelRoles(), "full", ["judge"])
    assert not list(evaluated.folder.glob("rescored-rules*"))
