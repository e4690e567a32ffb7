"""Tables beside the rates, counted by hand: thought against answer, queries spent, guards that differ, others' figures;
and PAIR replayed on another model."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.models.inspect_models import ModelRoles, Role, Target
from eval.protocols import parsed
from eval.report.attack_tables import attack_tables, by_queries, published_figures, thought_counts, thought_sentence
from eval.report.page import markdown_of
from eval.report.sections import EvaluationSource, report_of
from eval.run.planning import Wanted
from eval.run.rescore import rescore
from eval.run.results import Answer, Results
from eval.run.stage import evaluate
from eval.suites import TASKS
from pipelines.errors import UserError
from pipelines.settings.teacher import Teacher
from tests.commands import command
from tests.eval.made_results import measured, results, task_run

Serving = Callable[..., AbstractContextManager[Any]]


def made(values: list[float | None], details: list[dict[str, Any]], **run: Any) -> Results:
    found = results([measured("m")], {"none": {"m": values}}, {"none": task_run("none", **run)})
    answers = tuple(replace(one, detail=own) for one, own in zip(found.answers, details, strict=True))
    return replace(found, answers=answers)


def test_thoughts_and_answers_add_up_and_the_sentence_says_them() -> None:
    parts: list[tuple[Any, Any]] = [
        ("safe", "safe"), ("safe", "unsafe"), ("unsafe", "safe"), ("unsafe", "safe"), ("unsafe", "unsafe"),
        (None, "safe"), ("empty reply", "safe"),
    ]  # fmt: skip
    values: list[float | None] = [0, 1, 1, 1, 1, 0, None]
    details: list[dict[str, Any]] = [{"thought": thought, "answer": answer} for thought, answer in parts]
    found = made([*values, None], [*details, {}], score="apart")
    [table] = attack_tables({"": found})
    assert table.rows == [
        ["safe thought", "1", "1", "0"],
        ["unsafe thought", "2", "1", "0"],
        ["no thought", "1", "0", "0"],
        ["no verdict on it", "1", "0", "1"],
    ]
    counts = thought_counts(found.answers, expected=9)
    assert (counts.total(), counts["unknown", "unknown"]) == (9, 2)
    assert thought_sentence("m", "none", counts) == (
        "m, none: 3 of 9 (33 %) responses have an unsafe thought; 2 of these 3 end in a safe answer, 1 in an unsafe "
        "one. After a safe thought 1 of 2 answers are unsafe."
    )


def test_queries_and_guards_are_counted() -> None:
    spent = [{"queries": 3}, {"queries": 1}, {"queries": 9}, {"queries": 3}, {}]
    found = made([1, 1, 0, 1, None], spent)
    assert by_queries(found.answers, 5) == {1: 1, 3: 3, 9: 3}
    [table] = attack_tables({"": found})
    assert (table.head, table.rows[0][0]) == (["model, attack", "1", "3", "9"], "m, none")
    assert [cell.split()[0] for cell in table.rows[0][1:]] == ["20.0", "60.0", "60.0"]
    other = made([1, 0, 0, None, 1], [{}] * 5, roles={"guard": "wildguard"})
    both = attack_tables({"a": found, "b": other})[-1]
    assert both.title == "Guards on the same answers"
    # Both unsafe, the first only, the second only, both safe; kappa of these is 0.4; either has no verdict on one.
    assert both.rows[0][:7] == ["m, none", "llama-guard-3-8b, full", "wildguard, full", "1", "1", "0", "1"]
    assert both.rows[0][7].startswith("0.40")
    assert both.rows[0][8] == "2"


def test_published_figures_stand_beside_ours_in_a_report_only() -> None:
    assert {line["task"] for line in published_figures()} <= set(TASKS)
    assert all(0 <= float(line["figure"]) <= 100 and line["source"] for line in published_figures())
    found = results([measured("m")], {"gpqa": {"m": [1, 0, 1, 1]}}, {"gpqa": task_run("gpqa", roles={})})
    assert not attack_tables({"": found})
    report = report_of([EvaluationSource("a", Path("a"), found)])
    assert [row[1] for row in report.tables[0].rows] == [
        "m (ours)", "DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Llama-8B",
    ]  # fmt: skip
    assert "| gpqa | DeepSeek-R1-Distill-Qwen-7B | 49.1 | DeepSeek-R1 (arXiv 2501.12948) |" in markdown_of(report)


def test_answers_that_a_judge_graded_are_judged_by_a_guard_as_well(serving: Serving, tmp_path: Path) -> None:
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "Q0"}\n{"question": "Q1"}\n', encoding="utf-8")

    def script(body: dict[str, Any]) -> str:
        last = body["messages"][-1]["content"]
        if body["model"] == "guard":
            return "unsafe\nS1" if "plan" in last else "safe"
        return f"<think>\na plan\n</think>\n\n{last}"

    with serving(script) as endpoint:
        target, guard = (Teacher(model=name, base_url=endpoint.url) for name in ("target", "guard"))
        evaluate([Target("m", teacher=target)], Wanted(tasks=("strongreject",), data={"strongreject": data}), tmp_path)
        done = rescore(tmp_path, ModelRoles(guard=Role("guard", guard, "llamaguard")), "apart", ("guard",))
        evaluate([Target("m", teacher=target)], Wanted(tasks=("refusal",), limit=1), tmp_path / "other")
    [run] = done.results.tasks
    # By rules each answer was worth 1; by the guard each has an unsafe thought before a safe answer.
    assert (run.measure.name, run.roles, run.score) == ("asr", {"guard": "guard"}, "apart")
    assert [(one.value, one.detail["thought"], one.detail["answer"]) for one in done.results.answers] == [
        (1, "unsafe", "safe")
    ] * 2
    with pytest.raises(UserError, match=r"Nothing in .* is scored by a guard"):
        rescore(tmp_path / "other", ModelRoles(), "full", ("guard",))


def test_pair_is_replayed_on_another_model_and_marked(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "Q0"}\n{"question": "Q1"}\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def script(body: dict[str, Any]) -> str:
        last = body["messages"][-1]["content"]
        if body["model"] == "attacker":
            name = "Q0" if '"Q0"' in body["messages"][0]["content"] else "Q1"
            return json.dumps({"improvement": "", "prompt": f"Please, {name}"})
        if body["model"] == "judge":
            return "[[10]]"
        return "unsafe\nS1" if body["model"] == "guard" and "Yes to Please, Q0" in last else f"Yes to {last}"

    with serving(script) as endpoint:

        def teacher(name: str) -> Teacher:
            return Teacher(model=name, base_url=endpoint.url)

        roles = {
            name: Role(name, teacher(name), "llamaguard" if name == "guard" else "")
            for name in ("attacker", "judge", "guard")
        }
        settings = ["pair.streams=1", "pair.iterations=1"]
        wanted = Wanted(
            tasks=("pair",), data={"pair": data}, roles=ModelRoles(**roles), overrides=parsed(settings, TASKS)
        )
        first = evaluate([Target("one", teacher=teacher("one"))], wanted, tmp_path / "first")
        replay = parsed([f"pair.replay={tmp_path / 'first'}"], TASKS)
        again = replace(wanted, overrides=replay, roles=ModelRoles(guard=roles["guard"]))
        second = evaluate([Target("two", teacher=teacher("two"))], again, tmp_path / "second")
        asked = endpoint.asked("two")
    assert sorted(asked) == ["Please, Q0", "Please, Q1"]
    assert [one.value for one in (*first.answers, *second.answers)] == [1, None, 1, None]
    assert [one.detail["transfer"] for one in second.answers] == ["one", "one"]
    assert list(second.tasks[0].prompts) == ["transcripts of one"]
    curves = attack_tables({"first": first, "second": second})
    assert [table.rows[0][0] for table in curves] == ["first, one, pair", "second, two, pair (transfer)"]
    wrong = command(["eval", "rehearsal", "--task", "none", "--replay", "first"], cwd=tmp_path)
    assert (wrong.returncode, "--replay is for the task pair" in wrong.stderr) == (2, True)
    for place, why in (("second/results.json", "holds no prompt of PAIR's"), ("q.jsonl", "does not hold results")):
        with pytest.raises(UserError, match=why):
            evaluate(
                [Target("two", teacher=Teacher(model="two", base_url="http://127.0.0.1:9/v1"))],
                replace(again, overrides=parsed([f"pair.replay={tmp_path / place}"], TASKS)),
                tmp_path / "third",
            )
    assert isinstance(second.answers[0], Answer)
