"""LiveCodeBench over a loopback endpoint: programs that pass, fail, crash, run on, print on, or are none."""

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Any

import anyio
import pytest
from inspect_ai.log import EvalLog
from inspect_ai.scorer import Score

from eval.sandbox.bubblewrap import Limits, available
from eval.sandbox.code_cases import Case, decoded
from eval.sandbox.code_judge import ProgramVerdict, judged, tried
from eval.task_spec import TaskRequest
from eval.tasks.livecodebench import TASK, problems
from pipelines.errors import UserError
from pipelines.thinking import join
from tests.eval.questions import written

WINDOW = {"from": date(2024, 10, 1), "to": date(2025, 1, 31)}
SETTINGS: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 2048, "epochs": 1, **WINDOW}
TIGHT = Limits(cpu=1, wall=3, output=1 << 20)

needs_sandbox = pytest.mark.skipif(bool(available()), reason=available())


def fenced(code: str) -> str:
    return join("Think.", f"Here:\n\n```python\n{code}\n```\n")


def case(given: Any, expected: Any, kind: str = "stdin") -> dict[str, Any]:
    return {"input": given, "output": expected, "testtype": kind}


def packed(cases: list[dict[str, Any]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def row(name: str, private: str | None = None, **more: Any) -> dict[str, Any]:
    """A problem: print twice the number that is read. Its second private test tells a program that adds 2."""
    return {
        "question_content": f"Double it: {name}",
        "question_id": name,
        "contest_date": "2024-11-01T00:00:00",
        "difficulty": "easy",
        "starter_code": "",
        "public_test_cases": json.dumps([case("2\n", "4\n")]),
        "private_test_cases": packed([case("1\n", "2\n"), case("5\n", "10\n")]) if private is None else private,
        "metadata": "{}",
        **more,
    }


FUNCTIONAL = {
    "starter_code": "class Solution:\n    def double(self, numbers: List[int]) -> List[int]:\n        ",
    "public_test_cases": json.dumps([case("[1, 2]", "[2, 4]", "functional")]),
    "private_test_cases": packed([case("[]", "[]", "functional"), case("[7]", "[14]", "functional")]),
    "metadata": json.dumps({"func_name": "double"}),
}
METHOD = "class Solution:\n    def double(self, numbers: List[int]) -> List[int]:\n        return "
# Answer, value, failure, tests by outcome, untried.
CASES: dict[str, tuple[dict[str, Any], Any, Any, str, dict[str, int], int]] = {
    "passes": (row("passes"), fenced("print(int(input()) * 2)"), 1, "", {"passed": 3}, 0),
    "main": (
        row("main"),
        fenced('from __future__ import annotations\nif __name__ == "__main__":\n    print(2 * int(sys.stdin.read()))'),
        1,
        "",
        {"passed": 3},
        0,
    ),
    "fails": (row("fails"), fenced("print(int(input()) + 2)"), 0, "wrong_output", {"passed": 1, "wrong_output": 1}, 1),
    "crashes": (row("crashes"), fenced("print(1 / 0)"), 0, "failed", {"failed": 1}, 2),
    "runs_on": (row("runs_on"), fenced("while True: pass"), 0, "timeout", {"timeout": 1}, 2),
    "prints_on": (row("prints_on"), fenced("while True: print(4)"), 0, "output_limit", {"output_limit": 1}, 2),
    "no_program": (row("no_program"), "It is `print(2)`.", 0, "no program", {}, 0),
    "truncated": (
        row("truncated"),
        {"content": "<think>\n```python\nprint(2 * int(input()))\n```\nbut", "finish_reason": "length"},
        0,
        "no answer",
        {},
        0,
    ),
    "method": (row("method", **FUNCTIONAL), fenced(METHOD + "[2 * n for n in numbers]"), 1, "", {"passed": 3}, 0),
    "prints_too": (
        row("prints_too", **FUNCTIONAL),
        fenced(METHOD + "print('noise') or tuple(2 * n for n in numbers)"),
        1,
        "",
        {"passed": 3},
        0,
    ),
    "wrong_method": (
        row("wrong_method", **FUNCTIONAL),
        fenced(METHOD + "numbers * 2"),
        0,
        "wrong_output",
        {"wrong_output": 1},
        2,
    ),
}
Found = Mapping[str, Score]


@pytest.fixture(scope="module")
def found(
    serving: Callable[..., AbstractContextManager[Any]],
    run_tasks: Callable[..., list[EvalLog]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Found:
    """Every case, and a problem whose private tests would run a command if they were unpickled."""
    path = tmp_path_factory.mktemp("code")
    broken = row("broken", base64.b64encode(zlib.compress(b"cos\nsystem\n(S'false'\ntR.")).decode())
    request = TaskRequest(SETTINGS, data=written(path, [*(one[0] for one in CASES.values()), broken]))

    def script(body: dict[str, Any]) -> Any:
        name = body["messages"][-1]["content"].partition("\n")[0].removeprefix("Double it: ")
        return fenced("print(2)") if name == "broken" else CASES[name][1]

    built = TASK.build(request)
    assert (built.data.questions, list(built.prompts)) == (len(CASES) + 1, ["programming.md.jinja"])
    with pytest.MonkeyPatch.context() as patch, serving(script) as endpoint:
        patch.setattr("eval.tasks.livecodebench.Limits", lambda: TIGHT)
        (log,) = run_tasks([built.task], endpoint.model("student"))
        starters = [body for body in endpoint.requests if "def double(self" in str(body)]
    assert log.status == "success", log.error
    assert len(starters) == 3
    scores = {str(sample.id): (sample.scores or {})[TASK.scorer] for sample in log.samples or []}
    assert len(scores) == len(CASES) + 1
    # What a program has to print is nowhere in the log: neither tests nor expected outputs.
    assert "testtype" not in log.model_dump_json()
    return scores


@needs_sandbox
@pytest.mark.parametrize("name", CASES)
def test_program_is_scored_by_its_tests(found: Found, name: str) -> None:
    _, _, value, failure, tests, untried = CASES[name]
    detail = (found[name].metadata or {})["detail"]
    assert (found[name].value, detail["failure"]) == (value, failure)
    assert (detail.get("tests", {}), detail.get("untried", 0)) == (tests, untried)


@needs_sandbox
def test_crash_is_told_in_its_own_words(found: Found) -> None:
    assert (found["crashes"].metadata or {})["detail"]["reason"] == "ZeroDivisionError: division by zero"


@needs_sandbox
def test_problem_whose_tests_cannot_be_read_is_unscored(found: Found) -> None:
    assert found["broken"].as_float() != found["broken"].as_float()
    assert "this pickle has GLOBAL" in str(found["broken"].reason)


@needs_sandbox
def test_expected_output_never_enters_the_sandbox() -> None:
    """A program that prints all it can find, its own text and its memory's strings included, does not find it."""
    code = (
        "import gc, os, sys\n"
        "print(sys.stdin.read(), open('/program.py').read(), dict(os.environ), sys.argv)\n"
        "print([one for one in gc.get_objects() if isinstance(one, (str, list, dict))])"
    )
    result, outcome = tried(code, Case("stdin", "the input", "what-is-expected"), None, Limits())
    assert (result, outcome.status) == ("wrong_output", "ended")
    assert "the input" in outcome.stdout
    assert "what-is-expected" not in outcome.stdout


@needs_sandbox
def test_bundled_problems_are_solvable() -> None:
    solutions = {
        "own_quiet_run": "n, limit = map(int, input().split())\nbest = run = 0\nfor x in map(int, input().split()):\n"
        "    run = run + 1 if x <= limit else 0\n    best = max(best, run)\nprint(best)",
        "own_mean_of_rest": "n = int(input())\nx = sorted(map(int, input().split()))[1:-1]\nprint(sum(x) / len(x))",
        "own_bracket_depth": "class Solution:\n    def deepest(self, text):\n        depth = most = 0\n"
        "        for c in text:\n            depth += (c == '(') - (c == ')')\n            most = max(most, depth)\n"
        "            if depth < 0:\n                return -1\n        return -1 if depth else most",
    }
    samples, tests, _ = problems(TaskRequest(SETTINGS, bundled=True))
    assert {str(sample.id) for sample in samples} == solutions.keys()

    async def all_of_them() -> list[ProgramVerdict]:
        found = []
        for name, code in solutions.items():
            cases = decoded(tests[name].public, tests[name].private)
            found.append(await judged(code, cases, tests[name].function, Limits()))
        return found

    verdicts = anyio.run(all_of_them)
    assert [(one.passed, sum(one.results.values())) for one in verdicts] == [(True, 4), (True, 3), (True, 5)]


def test_window_leaves_out_other_contests(tmp_path: Path) -> None:
    days = ["2024-09-30", "2024-10-01", "2025-01-31", "2025-02-01"]
    path = written(tmp_path, [row(day, contest_date=f"{day}T00:00:00") for day in days])
    samples, tests, used = problems(TaskRequest(SETTINGS, data=path))
    assert [sample.id for sample in samples] == list(tests) == days[1:3]
    assert (used.questions, used.left_out) == (2, 2)
    with pytest.raises(UserError, match=r"None of the 4 problems of .* is from 2023-01-01 to 2023-12-31"):
        problems(TaskRequest(SETTINGS | {"from": "2023-01-01", "to": "2023-12-31"}, data=path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contest_date": "autumn"}, "contest_date of 'x' is 'autumn'. It needs a day"),
        ({"metadata": "[1]"}, "metadata of 'x' is no JSON object"),
        ({"public_test_cases": ""}, "'public_test_cases' holds no text"),
    ],
)
def test_problem_that_cannot_be_asked_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        problems(TaskRequest(SETTINGS, data=written(tmp_path, [row("x", **change)])))


def test_task_refuses_to_run_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    available.cache_clear()
    try:
        assert "'bwrap' is not installed" in TASK.needs()
    finally:
        available.cache_clear()
