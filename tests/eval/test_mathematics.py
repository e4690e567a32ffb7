"""MATH-500 and AIME over a loopback endpoint: right, wrong, cut off, without a box, and what no grader ends with."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.scorer import Score

from eval.scorers.grading import grade, grade_whole
from eval.scorers.mathematics import problems
from eval.task_spec import TaskRequest
from eval.tasks import aime24, math500
from pipelines.errors import UserError
from pipelines.thinking import join
from tests.eval.questions import written

SETTINGS: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 2048, "epochs": 2}
# Gold answer, and what the model says the first and the second time.
CASES: dict[str, tuple[str, list[Any]]] = {
    "right": (
        r"\frac{7}{2}",
        [join("Halve it.", r"So $\boxed{3.5}$."), join("Halve it.", r"So $\boxed{\frac{14}{4}}$.")],
    ),
    "wrong": ("9", [join(r"It is \boxed{9}, no.", r"So $\boxed{10}$."), r"First \boxed{9}, no: \boxed{8}."]),
    "truncated": ("9", [{"content": "<think>\nSo \\boxed{9}, but", "finish_reason": "length"}] * 2),
    "boxless": ("9", [join("Count.", "The answer is 9."), join("Count.", "\\boxed{9")]),
    "field": ("9", [{"content": r"\boxed{9}", "reasoning_content": "Count."}, {"content": r"\boxed{1}"}]),
    "endless": ("9", [r"\boxed{9}", r"\boxed{10^{10^{10^{10}}}}"]),
}
Found = Mapping[tuple[str, int], EvalSample]


@pytest.fixture(scope="module")
def found(
    serving: Callable[..., AbstractContextManager[Any]],
    run_tasks: Callable[..., list[EvalLog]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Found:
    """Every case as a problem of MATH-500, asked twice."""
    rows = [
        {"problem": f"Problem {name}", "answer": gold, "subject": "Algebra", "level": 2, "unique_id": name}
        for name, (gold, _) in CASES.items()
    ]
    request = TaskRequest(SETTINGS, data=written(tmp_path_factory.mktemp("math"), rows))
    replies = {name: iter(texts) for name, (_, texts) in CASES.items()}

    def script(body: dict[str, Any]) -> Any:
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 2048)
        problem, _, request = body["messages"][-1]["content"].partition("\n\n")
        assert r"\boxed{}" in request
        return next(replies[problem.removeprefix("Problem ")])

    built = math500.TASK.build(request)
    assert (built.data.questions, built.data.left_out, list(built.prompts)) == (6, 0, ["mathematics.md.jinja"])
    with pytest.MonkeyPatch.context() as patch, serving(script) as endpoint:
        patch.setattr("eval.scorers.mathematics.grade", partial(grade, cpu_seconds=1))
        (log,) = run_tasks([built.task], endpoint.model("student"))
    assert log.status == "success", log.error
    samples = {(str(sample.id), sample.epoch): sample for sample in log.samples or []}
    assert len(samples) == len(CASES) * 2
    return samples


def score(sample: EvalSample) -> Score:
    return (sample.scores or {})[math500.TASK.scorer]


def values(found: Found, name: str) -> list[Any]:
    """Of both samples, in no order: which of them is asked first is the endpoint's affair."""
    return sorted(score(found[name, epoch]).as_float() for epoch in (1, 2))


def failures(found: Found, name: str) -> set[str]:
    return {(score(found[name, epoch]).metadata or {})["detail"]["failure"] for epoch in (1, 2)}


def test_equivalent_answers_are_right(found: Found) -> None:
    assert values(found, "right") == [1, 1]
    assert {(score(found["right", epoch]).metadata or {})["reasoning"] for epoch in (1, 2)} == {"Halve it."}


def test_box_of_the_reasoning_or_an_earlier_one_does_not_count(found: Found) -> None:
    assert values(found, "wrong") == [0, 0]
    assert {(score(found["wrong", epoch]).metadata or {})["detail"]["final"] for epoch in (1, 2)} == {"10", "8"}


def test_truncated_reasoning_is_a_wrong_answer(found: Found) -> None:
    assert (values(found, "truncated"), failures(found, "truncated")) == ([0, 0], {"no answer"})
    assert {found["truncated", epoch].output.stop_reason for epoch in (1, 2)} == {"max_tokens"}


def test_answer_without_a_box_is_wrong(found: Found) -> None:
    assert (values(found, "boxless"), failures(found, "boxless")) == ([0, 0], {"no box"})


def test_reasoning_in_a_field_is_no_part_of_the_answer(found: Found) -> None:
    assert values(found, "field") == [0, 1]


def test_answer_that_grading_does_not_end_with_is_unscored(found: Found) -> None:
    scores = [score(found["endless", epoch]) for epoch in (1, 2)]
    assert sorted(one.as_float() == 1 for one in scores) == [False, True]
    (unscored,) = (one for one in scores if one.as_float() != 1)
    assert unscored.as_float() != unscored.as_float()
    assert unscored.reason == "the comparison took over 1 s of computing or ended its process"


def test_question_and_subject_are_kept(found: Found) -> None:
    metadata = found["right", 1].metadata
    assert (metadata["question"], metadata["category"], metadata["level"]) == ("Problem right", "Algebra", 2)


@pytest.mark.parametrize(("entry", "count"), [(math500.TASK, 12), (aime24.TASK, 4)])
def test_bundled_problems_are_there(entry: Any, count: int) -> None:
    built = entry.build(TaskRequest(SETTINGS, bundled=True))
    assert (built.data.questions, len(built.task.dataset)) == (count, count)


def test_limit_takes_the_first_problems() -> None:
    samples, used = problems(TaskRequest(SETTINGS, bundled=True, limit=3), math500.PUBLIC, math500.SAMPLE, False)
    assert ([sample.id for sample in samples], used.questions) == (["rope", "percent", "line"], 3)


def test_aime_takes_numbers_as_answers_and_grades_them_strictly(
    serving: Callable[..., AbstractContextManager[Any]], run_tasks: Callable[..., list[EvalLog]], tmp_path: Path
) -> None:
    rows = [{"id": 60, "problem": "A", "answer": 204}, {"id": 61, "problem": "B", "answer": "033"}]
    built = aime24.TASK.build(TaskRequest(SETTINGS, data=written(tmp_path, rows)))
    with serving(
        lambda body: r"\boxed{204}" if body["messages"][-1]["content"][0] == "A" else r"\boxed{33.0}"
    ) as server:
        (log,) = run_tasks([built.task], server.model("student"))
    found = {(str(one.id), one.epoch): score(one).value for one in log.samples or []}
    assert found == {("60", 1): 1, ("60", 2): 1, ("61", 1): 0, ("61", 2): 0}


def test_bundled_whole_numbers_are_whole() -> None:
    samples, _ = problems(TaskRequest(SETTINGS, bundled=True), aime24.PUBLIC, aime24.SAMPLE, True)
    assert all(grade_whole(str(sample.target), str(sample.target)).right for sample in samples)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "problem": "A"}, "the problem '1' has no answer"),
        ({"id": 1, "problem": "A", "answer": r"\frac12"}, "the answer .* of '1' is no whole number from 0 to 999"),
        ({"id": 1, "answer": "3"}, "no column for the problem"),
    ],
)
def test_problem_that_cannot_be_asked_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        aime24.TASK.build(TaskRequest(SETTINGS, data=written(tmp_path, [row])))
