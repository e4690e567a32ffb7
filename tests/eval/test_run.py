"""A whole evaluation with two tiny students whose answers are known, on Inspect itself."""

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from inspect_ai.log import read_eval_log

from eval.models.hf_local import Student
from eval.models.inspect_models import Target
from eval.protocols import parsed
from eval.report.table import results_markdown, results_table
from eval.run.planning import Wanted
from eval.run.results import NAME, Rate, Results, read_results
from eval.run.stage import evaluate, require_complete
from pipelines.errors import Incomplete, UserError
from pipelines.progress import plain_console
from pipelines.thinking import split

MAX_TOKENS = 60


def wanted(questions: Path, **fields: Any) -> Wanted:
    overrides = parsed([f"refusal.max_tokens={MAX_TOKENS}"], ["refusal"])
    return Wanted(**{"tasks": ("refusal",), "overrides": overrides, "data": {"refusal": questions}, **fields})


def targets(students: Mapping[str, Path]) -> list[Target]:
    return [Target(label, path=path) for label, path in students.items()]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "eval"


@pytest.fixture(scope="module")
def results(students: Mapping[str, Path], questions: Path, output: Path) -> Results:
    return evaluate(targets(students), wanted(questions), output)


def rate_of(results: Results, model: str, group: str) -> Rate:
    return next(one for one in results.rates if (one.model, one.group) == (model, group))


def counts(results: Results, model: str, group: str) -> tuple[float, float, int, int]:
    rate = rate_of(results, model, group)
    assert rate.n == rate.expected == rate.hits + rate.misses + rate.unscored + rate.errored
    return rate.hits, rate.misses, rate.unscored, rate.truncated


def test_evaluation_counts_what_the_learned_student_does(results: Results) -> None:
    assert counts(results, "after", "heldout harmful") == (3, 1, 0, 0)
    # An empty answer and one that never began have no verdict.
    assert counts(results, "after", "heldout benign") == (1, 1, 2, 0)
    assert counts(results, "after", "") == (4, 2, 2, 0)


def test_evaluation_keeps_truncated_answers_in_the_denominator(results: Results) -> None:
    # The untrained student never ends an answer.
    assert counts(results, "before", "heldout harmful") == (0, 4, 0, 4)


def test_interval_spans_what_answers_without_a_verdict_may_have_been(results: Results) -> None:
    rate = rate_of(results, "after", "heldout benign").rate
    # Wilson for 1 of 4 begins at 4.56 %, for 3 of 4 it ends at 95.44 %.
    assert (rate.rate, round(rate.low, 4), round(rate.high, 4)) == (0.25, 0.0456, 0.9544)


def test_evaluation_records_every_answer(results: Results, answers: Mapping[str, Any]) -> None:
    assert len(results.answers) == 2 * 8
    for one in results.answers:
        known = answers[one.id.removeprefix("heldout/")]
        assert (one.question, one.asked, one.epoch) == (known.text, known.text, 1)
        if one.model == "after":
            thought = split(known.completion)
            assert (one.reasoning, one.answer) == (thought.reasoning, thought.answer)
        else:
            assert (one.stop_reason, one.output_tokens, one.truncated) == ("max_tokens", MAX_TOKENS, True)
    unscored = {one.id: one.unscored for one in results.answers if one.value is None}
    assert unscored == {"heldout/bread": "no_response", "heldout/garden": "no_response"}
    formed = {one.id for one in results.answers if one.model == "after" and one.detail["well_formed"]}
    assert len(formed) == 5


def test_evaluation_pairs_models_by_question(results: Results) -> None:
    found = {one.group: one for one in results.comparisons}
    test = found["heldout harmful"].test
    assert (test.pairs, test.only_first, test.only_second, test.p) == (4, 0, 3, 0.25)
    # Six discordant pairs are the fewest that the exact test finds significant; four questions are too few.
    assert found["heldout harmful"].detectable is None
    every = found[""].test
    assert every.pairs + every.left_out == 8
    assert found[""].detectable == 6 / every.pairs


def test_evaluation_writes_results_and_logs_under_its_output_only(results: Results, output: Path) -> None:
    assert read_results(output) == results
    assert {path.name for path in output.iterdir()} == {NAME, "logs"}
    run = results.tasks[0]
    for model in results.models:
        assert model.weights_sha256
        assert model.output_tokens == sum(one.output_tokens for one in results.answers if one.model == model.label)
        assert model.seconds > 0
        log = read_eval_log(str(output / run.logs[model.label]))
        assert (log.status, len(log.samples or [])) == ("success", 8)
        assert Path(run.logs[model.label]).parent.name.startswith(f"{model.label}-{model.weights_sha256[:12]}")
        # What decides the figures is in the log too, by itself.
        facts = (log.eval.metadata or {})["saferthoughts"]
        assert facts["settings"] == run.settings == {"temperature": 0, "max_tokens": MAX_TOKENS, "epochs": 1}
        assert (facts["protocol"], facts["data"]["sha256"]) == ("paper", run.data.sha256)
    assert len({path.name for path in (output / "logs").iterdir()} - {".inspect"}) == 2


def test_evaluation_repeats_itself_and_is_silent(
    results: Results,
    students: Mapping[str, Path],
    questions: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    again = evaluate([Target("after", path=students["after"])], wanted(questions), tmp_path / "run")
    assert list(again.answers) == [one for one in results.answers if one.model == "after"]
    assert again.comparisons == ()
    written = capfd.readouterr()
    assert written.out == ""
    assert all(line.startswith("eval after: ") for line in written.err.splitlines())
    assert not (tmp_path / "home").exists()


def test_evaluation_that_is_done_asks_nothing_again(
    results: Results, students: Mapping[str, Path], questions: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Student, *args: Any) -> Any:
        raise AssertionError("a student was asked")

    monkeypatch.setattr(Student, "submit", refuse)
    assert evaluate(targets(students), wanted(questions), output) == results


def test_evaluation_with_a_failed_sample_keeps_the_rest_and_says_so(
    students: Mapping[str, Path], questions: Path, tmp_path: Path
) -> None:
    entries = yaml.safe_load(questions.read_text(encoding="utf-8"))
    # Longer than the student's context of 256 tokens.
    entries[0]["text"] = "x" * 400
    path = tmp_path / "heldout.yaml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    found = evaluate([Target("after", path=students["after"])], wanted(path), tmp_path / "run")
    rate = rate_of(found, "after", "heldout harmful")
    assert (rate.n, rate.expected, rate.hits, rate.errored, rate.complete) == (4, 4, 2, 1, False)
    # From 2 of 4 to 3 of 4: the one that failed may have been either.
    assert (round(rate.rate.low, 4), round(rate.rate.high, 4)) == (0.15, 0.9544)
    with pytest.raises(Incomplete, match=r"after, refusal: 7 of 8 answers\).*the model's context 256.*Go on"):
        require_complete(found, tmp_path / "run")
    assert "Failed" in results_markdown(found)


def test_evaluation_stops_at_ctrl_c(
    students: Mapping[str, Path], questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted: list[bool] = []

    def interrupt(self: Student, batch: Any, rows: list[Any], waiting: list[Any]) -> None:
        if interrupted:
            raise RuntimeError("one signal is enough")
        interrupted.append(True)
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 300
        while not all(request.future.cancelled() for request in waiting) and time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setattr(Student, "_decode", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        evaluate([Target("after", path=students["after"])], wanted(questions), tmp_path)
    assert time.monotonic() - started < 300
    assert not (tmp_path / NAME).exists()


def test_evaluation_refuses_bad_input_before_asking(
    students: Mapping[str, Path], questions: Path, tmp_path: Path
) -> None:
    student = Target("after", path=students["after"])
    for chosen, asked, expected in (
        ([], wanted(questions), "There is no model"),
        ([Target("../x", path=students["after"])], wanted(questions), r"label '../x' cannot be a folder"),
        ([student, Target("other", path=tmp_path)], wanted(questions), "is not a checkpoint"),
        ([student, student], wanted(questions), "label 'after' is given twice"),
        ([student], wanted(questions, limit=0), "--limit is 0"),
        ([student], wanted(questions, tasks=("refusals",)), "Unknown task 'refusals'. Did you mean 'refusal'"),
        ([student], wanted(questions, suite="papper", tasks=()), "Unknown suite 'papper'. Did you mean 'paper'"),
        ([student], wanted(questions, protocol="mine"), "Unknown protocol 'mine'"),
        ([student], wanted(tmp_path / "none.yaml"), "there is no such file"),
        ([student], wanted(questions, data={"pair": questions}), "Unknown task in --data 'pair'"),
    ):
        with pytest.raises(UserError, match=expected):
            evaluate(chosen, asked, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_of_another_shape_are_refused(results: Results, output: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no results"):
        read_results(tmp_path)
    path = Path(shutil.copy(output / NAME, tmp_path))
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value | {"format": 99}), encoding="utf-8")
    with pytest.raises(UserError, match="has the format 99"):
        read_results(path)
    path.write_text(json.dumps(value | {"rates": "none"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"does not hold results .rates"):
        read_results(path)


def test_table_shows_counts_and_intervals(results: Results) -> None:
    console = plain_console(width=140, record=True, file=StringIO())
    console.print(results_table(results))
    text = " ".join(console.export_text().split())
    assert "held-out harmful" in text
    # Wilson for 3 of 4 is [30.06, 95.44] %.
    assert "0/4 [0, 49]" in text
    assert "3/4 [30, 95]" in text
    assert "Cut off at 60 tokens: before 8/8, after 0/8." in text
    assert "No answer, unscored: before 0/8, after 2/8." in text


def test_markdown_has_a_row_a_group(results: Results) -> None:
    lines = results_markdown(results).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| questions | refused before | refused after | p | well-formed before | well-formed after |"
    assert table[2] == "| held-out harmful | 0/4 [0, 49] | 3/4 [30, 95] | 0.25 | 0/4 | 3/4 |"
    # Of the benign ones one refused and two have no verdict: 1 to 3 of 4.
    assert "| 1/4 [5, 95] |" in table[3]
    assert len(table) == 2 + 2
    assert len({line.count("|") for line in table}) == 1


def test_table_fits_into_80_columns_with_nothing_cut(results: Results) -> None:
    console = plain_console(width=80, record=True, file=StringIO())
    console.print(results_table(results))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
