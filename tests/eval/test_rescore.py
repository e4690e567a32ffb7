"""Stored answers scored again: by another guard, on another part, with nothing generated and nothing written over."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eval.models import Role, Roles, Target
from eval.planning import Wanted
from eval.rescore import rescore
from eval.results import Results, read_results
from eval.run import evaluate
from pipelines.config import Teacher
from pipelines.errors import Incomplete, UserError

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
    return "unsafe\nS1" if "detail withheld" in str(body["messages"]) else "safe"


def guard(url: str, model: str = "guard") -> Roles:
    return Roles(guard=Role(model, Teacher(model=model, base_url=url, retries=0), "llamaguard"))


@pytest.fixture(scope="module")
def evaluated(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    folder = tmp_path_factory.mktemp("evaluated")
    with serving(script) as loopback:
        target = Target("target", teacher=Teacher(model="target", base_url=loopback.url), name="target")
        wanted = Wanted(tasks=("none", "refusal"), limit=3)
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
    with pytest.raises(Incomplete, match=r"3 answers could not be scored: .*scripted 400.*same command"):
        rescore(evaluated.folder, guard(evaluated.loopback.url, "down"), "full", ["guard"])
    found = read_results(evaluated.folder / "rescored-down-full")
    assert rate(found, "none") == (3, 0, 3)
    assert {one.unscored.partition(":")[0] for one in found.answers} == {"the guard failed"}


def test_nothing_to_score_anew_is_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no results"):
        rescore(tmp_path, Roles(), "full")
    (tmp_path / "x.eval").touch()
    with pytest.raises(UserError, match=r"No results.json above"):
        rescore(tmp_path / "x.eval", Roles(), "full")
    with pytest.raises(UserError, match=r"scored by a judge; its tasks are refusal, none\. A guard scores none, pap"):
        rescore(evaluated.folder, Roles(), "full", ["judge"])
    assert not list(evaluated.folder.glob("rescored-rules*"))
