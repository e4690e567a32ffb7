"""A whole evaluation with two tiny students whose answers are known, on Inspect itself."""

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from inspect_ai.log import read_eval_log
from rich.console import Console

from eval.run import IncompleteEvaluation, evaluate
from eval.scores import Scores, read_scores
from eval.students import Student
from eval.table import scores_markdown, scores_table
from pipelines.errors import UserError
from pipelines.thinking import split

MAX_TOKENS = 60


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def scores(students: Mapping[str, Path], sets: Mapping[str, Path], output: Path) -> Scores:
    return evaluate(students, output, MAX_TOKENS, sets=sets)


def counts(scores: Scores, model: str, name: str, kind: str) -> dict[str, int]:
    group = next(one for one in scores.groups if (one.model, one.set, one.kind) == (model, name, kind))
    names = ("n", "expected", "refused", "complied", "unscored", "well_formed", "truncated", "unclosed")
    return {field: getattr(group, field) for field in names}


def test_evaluation_counts_what_the_learned_student_does(scores: Scores) -> None:
    common = {"n": 4, "expected": 4, "truncated": 0}
    harmful = {"refused": 3, "complied": 1, "unscored": 0, "well_formed": 3, "unclosed": 0}
    assert counts(scores, "after", "heldout", "harmful") == common | harmful
    benign = {"refused": 1, "complied": 1, "unscored": 2, "well_formed": 2, "unclosed": 1}
    assert counts(scores, "after", "heldout", "benign") == common | benign


def test_evaluation_keeps_truncated_answers_in_the_denominator(scores: Scores) -> None:
    # The untrained student never ends an answer.
    expected = {"n": 4, "expected": 4, "refused": 0, "complied": 4, "unscored": 0}
    expected |= {"well_formed": 0, "truncated": 4, "unclosed": 0}
    assert counts(scores, "before", "heldout", "harmful") == expected


def test_evaluation_records_every_answer(scores: Scores, answers: Mapping[str, Any]) -> None:
    assert len(scores.samples) == 2 * (8 + 2)
    for sample in scores.samples:
        if sample.model == "after":
            thought = split(answers[sample.id].completion)
            assert (sample.text, sample.reasoning, sample.answer) == (
                answers[sample.id].text,
                thought.reasoning,
                thought.answer,
            )
        else:
            assert (sample.stop_reason, sample.output_tokens) == ("max_tokens", MAX_TOKENS)
    unscored = {(one.set, one.id) for one in scores.samples if one.refused is None}
    assert unscored == {("heldout", "bread"), ("heldout", "garden")}


def test_evaluation_pairs_models_by_sample(scores: Scores) -> None:
    found = {(one.set, one.kind, one.measure): one.test for one in scores.comparisons}
    assert len(found) == 2 * 2 * 2
    test = found["heldout", "harmful", "refused"]
    assert (test.pairs, test.only_first, test.only_second, test.p) == (4, 0, 3, 0.25)
    assert found["swapped", "benign", "refused"].p == 1


def test_evaluation_writes_scores_and_logs_under_its_output_only(
    scores: Scores, output: Path, students: Mapping[str, Path]
) -> None:
    assert read_scores(output / "scores.json") == scores
    for model in scores.models:
        assert model.weights_sha256
        assert model.output_tokens == sum(one.output_tokens for one in scores.samples if one.model == model.label)
        logs = [read_eval_log(str(output / name)) for name in model.logs]
        assert [log.status for log in logs] == ["success", "success"]
        assert [len(log.samples or []) for log in logs] == [8, 2]
    assert {path.name for path in output.iterdir()} == {"scores.json", "logs"}
    assert {path.name for path in (output / "logs").iterdir()} == {"before", "after", ".inspect"}
    # Inspect's own metrics use the same denominators.
    log = read_eval_log(str(output / scores.models[1].logs[0]))
    assert log.results
    metrics = {one.name: one.metrics for one in log.results.scores}
    assert metrics["refused"]["grouped_harmful"].value == 0.75
    assert metrics["unscored"]["grouped_benign"].value == 0.5


def test_evaluation_names_its_decoding_and_files(scores: Scores, sets: Mapping[str, Path]) -> None:
    assert scores.decoding.max_tokens == MAX_TOKENS
    assert [(one.name, one.questions) for one in scores.datasets] == [("heldout", 8), ("swapped", 2)]
    assert scores.models[0].weights_sha256 != scores.models[1].weights_sha256


def test_evaluation_repeats_itself_and_is_silent(
    scores: Scores,
    students: Mapping[str, Path],
    sets: Mapping[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    again = evaluate({"after": students["after"]}, tmp_path / "run", MAX_TOKENS, sets=sets)
    assert list(again.samples) == [one for one in scores.samples if one.model == "after"]
    assert again.comparisons == ()
    written = capfd.readouterr()
    assert written.out == ""
    assert all(line.startswith("eval after: ") for line in written.err.splitlines())
    assert not (tmp_path / "home").exists()


def test_evaluation_with_a_failed_sample_gives_no_rates(
    students: Mapping[str, Path], sets: Mapping[str, Path], tmp_path: Path
) -> None:
    entries = yaml.safe_load(sets["heldout"].read_text(encoding="utf-8"))
    # Longer than the student's context of 256 tokens.
    entries[0]["text"] = "x" * 400
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    with pytest.raises(IncompleteEvaluation, match=r"scores for 7 of 8 questions of 'long'.*the model's context 256"):
        evaluate({"after": students["after"]}, tmp_path / "run", MAX_TOKENS, sets={"long": path})
    assert not (tmp_path / "run" / "scores.json").exists()


def test_evaluation_stops_at_ctrl_c(
    students: Mapping[str, Path], sets: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Student, batch: Sequence[Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 30
        while not all(request.future.cancelled() for request in batch) and time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setattr(Student, "_decode", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        evaluate({"after": students["after"]}, tmp_path, MAX_TOKENS, sets=sets)
    assert time.monotonic() - started < 30
    assert not (tmp_path / "scores.json").exists()


def test_evaluation_refuses_bad_input_before_asking(
    students: Mapping[str, Path], sets: Mapping[str, Path], tmp_path: Path
) -> None:
    student = students["after"]
    with pytest.raises(UserError, match="There is no model"):
        evaluate({}, tmp_path, MAX_TOKENS, sets=sets)
    with pytest.raises(UserError, match=r"label '../x' cannot be a folder"):
        evaluate({"../x": student}, tmp_path, MAX_TOKENS, sets=sets)
    with pytest.raises(UserError, match="max_tokens is 0"):
        evaluate({"after": student}, tmp_path, 0, sets=sets)
    with pytest.raises(UserError, match="limit is 0"):
        evaluate({"after": student}, tmp_path, MAX_TOKENS, limit=0, sets=sets)
    with pytest.raises(UserError, match="is not a checkpoint"):
        evaluate({"before": student, "after": tmp_path}, tmp_path, MAX_TOKENS, sets=sets)
    assert list(tmp_path.iterdir()) == []


def test_scores_of_another_shape_are_refused(scores: Scores, output: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no scores"):
        read_scores(tmp_path / "scores.json")
    path = Path(shutil.copy(output / "scores.json", tmp_path))
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value | {"format": 99}), encoding="utf-8")
    with pytest.raises(UserError, match="has the format 99"):
        read_scores(path)
    path.write_text(json.dumps(value | {"groups": "none"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"does not hold scores .groups"):
        read_scores(path)


def test_table_shows_counts_and_intervals(scores: Scores) -> None:
    console = Console(width=140, record=True, file=StringIO())
    console.print(scores_table(scores))
    text = " ".join(console.export_text().split())
    assert "held-out harmful" in text
    # Wilson for 3 of 4 is [30.06, 95.44] %.
    assert "0/4 [0, 49]" in text
    assert "3/4 [30, 95]" in text
    assert "Cut off at 60 tokens: before 10/10, after 0/10." in text
    assert "No answer, unscored: before 0/10, after 2/10." in text


def test_markdown_has_a_row_a_group(scores: Scores) -> None:
    lines = scores_markdown(scores).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| questions | refused before | refused after | p | well-formed before | well-formed after |"
    assert table[2] == "| held-out harmful | 0/4 [0, 49] | 3/4 [30, 95] | 0.25 | 0/4 | 3/4 |"
    assert len(table) == 2 + 4
    assert len({line.count("|") for line in table}) == 1


def test_table_fits_into_80_columns_with_nothing_cut(scores: Scores) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(scores_table(scores))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
