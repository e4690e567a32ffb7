"""The report of evaluations: figures beside the study's, what may stand in one table, and the golden markdown."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from eval.report.examples import EACH, SHOWN, examples_of
from eval.report.figures import EvaluationSource
from eval.report.page import markdown_of, read_sources, write_evaluation_report
from eval.report.paper_results import METHODS, study, study_row
from eval.report.sections import report_of
from eval.report.table import results_markdown
from eval.run.results import Results, write_results
from pipelines.errors import UserError, visible_value
from tests.eval.made_results import BASE, Value, answer, compared, measured, results, task_run

RAW = measured("raw", f"deepseek-ai/{BASE}", "raw")
IMPROVED = measured("improved", f"deepseek-ai/{BASE}", "improved")
# 2 of 50 and 33 of 50, one answer without a verdict and one that failed, 12 of 150.
LOW: list[Value] = [1.0] * 2 + [0.0] * 48
HIGH: list[Value] = [1.0] * 33 + [0.0] * 17
HOLED: list[Value] = [1.0] * 2 + [0.0] * 46 + [None, "error"]
REFUSED: list[Value] = [1.0] * 12 + [0.0] * 138


def source(name: str, found: Results) -> EvaluationSource:
    return EvaluationSource(name, Path(name), found)


def paper() -> Results:
    """Two models on three of the study's tasks and one that it does not have."""
    values = {
        "pair": {"raw": HIGH, "improved": LOW},
        "pap": {"raw": HIGH, "improved": HOLED},
        "xstest": {"improved": REFUSED},
        "refusal": {"improved": [1.0, 0.0]},
    }
    return results([RAW, IMPROVED], values, comparisons=[compared("pair", "raw", "improved")])


def by_hand(hits: int, n: int) -> tuple[float, float]:
    """Wilson's interval in percent, by its formula."""
    z, p = 1.959963984540054, hits / n
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return 100 * (middle - half) / (1 + z**2 / n), 100 * (middle + half) / (1 + z**2 / n)


def test_the_markdown_is_the_golden_one() -> None:
    other = results(
        [measured("after")],
        {"none": {"after": LOW}},
        {"none": task_run("none", "repository", "answer", settings={"max_tokens": 2048, "target": {"top_p": 0.9}})},
    )
    markdown = markdown_of(report_of([source("mine", paper()), source("other", other)]))
    assert markdown == (Path(__file__).parent / "report.golden.md").read_text(encoding="utf-8")


def test_a_figure_is_the_one_computed_by_hand() -> None:
    markdown = markdown_of(report_of([source("mine", paper())]))
    low, high = by_hand(33, 50)
    assert f"66.0 [{low:.1f}, {high:.1f}]<br>33/50<br>study 66.0 [{low:.1f}, {high:.1f}]" in markdown
    low, high = by_hand(2, 50)
    study_low, study_high = by_hand(6, 50)
    # Newcombe's interval of 4 % less 12 %.
    down, up = math.hypot(4 - low, study_high - 12), math.hypot(high - 4, 12 - study_low)
    expected = f"study 12.0 [{study_low:.1f}, {study_high:.1f}]<br>diff. -8.0 [{-8 - down:.1f}, {-8 + up:.1f}]"
    assert f"4.0 [{low:.1f}, {high:.1f}]<br>2/50<br>{expected}" in markdown


def test_bundled_questions_are_not_held_against_the_study() -> None:
    run = task_run("none", data=replace(task_run("none").data, source="harmful.yaml (bundled)"))
    found = results([RAW], {"none": {"raw": LOW}}, {"none": run})
    assert "| 4.0 [1.1, 13.5]<br>2/50<br>uncorrected |" in markdown_of(report_of([source("mine", found)]))


def test_what_was_not_measured_is_a_dash_and_absent_from_the_figures() -> None:
    report = report_of([source("mine", paper())])
    (section,) = report.sections
    assert section.rows[0].figures.keys() == {"pair", "pap"}
    (line,) = [line for line in markdown_of(report).splitlines() if "| raw |" in line]
    cells = [cell.strip() for cell in line.split("|")[3:-1]]
    assert [cell == "-" for cell in cells] == [True, True, True, True, False, False, True]


def test_answers_without_a_verdict_are_told_and_widen_the_interval_upwards() -> None:
    report = report_of([source("mine", paper())])
    low, high = by_hand(2, 50)[0], by_hand(4, 50)[1]
    assert f"4.0 [{low:.1f}, {high:.1f}]<br>2/50, 1 unscored, 1 errored<br>" in markdown_of(report)
    assert [warning for warning in report.warnings if "PAP of" in warning]


def test_a_rate_of_nothing_is_a_dash_and_null(tmp_path: Path) -> None:
    nothing: list[Value] = []
    write_results(results([measured("m")], {"none": {"m": nothing}}), tmp_path / "results.json")
    report = write_evaluation_report(read_sources([tmp_path]), tmp_path / "report")
    assert "| m | - | - | - | - | -<br>0/0 |" in markdown_of(report)
    figures = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert figures["sections"][0]["rows"][0]["figures"]["none"]["counts"]["rate"] == {
        "rate": None,
        "low": 0.0,
        "high": 1.0,
    }


def test_answers_without_a_single_verdict_are_no_rate_of_0() -> None:
    values: dict[str, dict[str, list[Value]]] = {"pair": {"raw": HIGH, "improved": [None] * 50}}
    found = results([RAW, IMPROVED], values, comparisons=[compared("pair", "raw", "improved")])
    report = report_of([source("mine", found)])
    assert "| -<br>0/50, 50 unscored<br>study 12.0 [5.6, 23.8] |" in markdown_of(report)
    assert report.sections[0].compared == ()


def test_protocols_and_score_modes_are_shown_apart_with_a_warning() -> None:
    found = [
        source(protocol + score, results([RAW], {"none": {"raw": LOW}}, {"none": task_run("none", protocol, score)}))
        for protocol, score in (("paper", "full"), ("paper", "answer"), ("repository", "full"))
    ]
    report = report_of(found)
    assert [(one.protocol, one.score, len(one.rows)) for one in report.sections] == [
        ("paper", "full", 1),
        ("paper", "answer", 1),
        ("repository", "full", 1),
    ]
    assert report.warnings[0].startswith("Not to be compared with each other")
    assert "protocol paper, score answer; protocol repository, score full" in markdown_of(report)
    assert not report_of(found[:1]).warnings


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"roles": {"guard": "another"}}, "guard"),
        ({"settings": {"temperature": 1, "max_tokens": 4096, "epochs": 1}}, "setting temperature"),
        ({"prompts": {"guard.jinja": "00"}}, "prompt guard.jinja"),
        ({"data": replace(task_run("none").data, sha256="00")}, "the questions"),
    ],
)
def test_a_task_asked_in_two_ways_is_marked_and_not_paired(changed: dict[str, object], word: str) -> None:
    found = [
        source("one", results([RAW], {"none": {"raw": LOW}})),
        source("two", results([IMPROVED], {"none": {"improved": LOW}}, {"none": task_run("none", **changed)})),
    ]
    report = report_of(found)
    (section,) = report.sections
    assert [row.figures["none"].mark for row in section.rows] == ["a", "b"]
    assert [setup.rows for setup in section.setups] == [(section.rows[0].name,), (section.rows[1].name,)]
    assert report.warnings[0].endswith(f"they differ in {word}.")
    assert section.comparisons == ()


def test_one_model_measured_in_two_evaluations_is_one_row() -> None:
    found = [
        source("safety", results([RAW], {"none": {"raw": LOW}})),
        source("maths", results([RAW], {"math500": {"raw": HIGH}})),
    ]
    (row,) = report_of(found).sections[0].rows
    assert row.figures.keys() == {"none", "math500"}
    assert row.evaluations == ("safety", "maths")


def test_one_model_measured_twice_is_two_rows_told_apart() -> None:
    found = [source(name, results([RAW], {"none": {"raw": LOW}})) for name in ("first", "second")]
    names = [row.name for row in report_of(found).sections[0].rows]
    assert names == [f"deepseek-ai/{BASE} (first) raw", f"deepseek-ai/{BASE} (second) raw"]


def test_models_evaluated_apart_are_paired_by_question() -> None:
    """Base and student each with an evaluation of its own: 31 of 50 questions are hits of the base alone."""
    found = [
        source("base", results([RAW], {"none": {"raw": HIGH}, "pap": {"raw": LOW[:10]}})),
        source("student", results([IMPROVED], {"none": {"improved": LOW}, "pap": {"improved": LOW}})),
        source("stranger", results([measured("s", "Qwen3-14B", "raw")], {"none": {"s": LOW}})),
    ]
    (one,) = report_of(found).sections[0].comparisons
    # Two sided, by the binomial distribution itself: all of 31 fall one way.
    assert (one.task, one.test.pairs, one.test.only_first, one.test.only_second) == ("none", 50, 31, 0)
    assert one.test.p == pytest.approx(2 * 0.5**31)
    assert one.first.endswith(" raw")
    assert one.detectable == pytest.approx(6 / 50)


def test_rows_stand_in_the_study_s_order_and_strangers_last() -> None:
    models = [
        measured("stranger"),
        measured("b", "Qwen3-14B", "raw"),
        measured("c", BASE, "short"),
        measured("a", BASE, "raw"),
    ]
    found = results(models, {"none": {model.label: LOW for model in models}})
    rows = report_of([source("one", found)]).sections[0].rows
    assert [row.measured.label for row in rows] == ["a", "c", "b", "stranger"]


def test_counts_that_do_not_add_up_are_refused() -> None:
    found = paper()
    broken = replace(found, rates=(replace(found.rates[0], misses=0), *found.rates[1:]))
    with pytest.raises(
        UserError,
        match=r"raw on pair has 33 hits, 0 misses, 0 unscored and 0 errored, which do not add up to its n of 50",
    ):
        report_of([source("mine", broken)])


def test_evaluations_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    for name in ("runs/a/eval", "runs/b/eval", "other/b/eval", "lone"):
        write_results(paper(), tmp_path / name / "results.json")
    short = read_sources([tmp_path / "runs/a/eval", tmp_path / "lone" / "results.json"])
    assert [one.name for one in short] == ["a", "lone"]
    longer = read_sources([tmp_path / "runs/b/eval", tmp_path / "other/b/eval"])
    assert [one.name for one in longer] == ["runs/b", "other/b"]


def test_bad_paths_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There are no results at .*results\.json'\. Run first: saferthoughts eval"):
        read_sources([tmp_path])
    write_results(paper(), tmp_path / "results.json")
    with pytest.raises(UserError, match="given twice"):
        read_sources([tmp_path, tmp_path / "results.json"])
    with pytest.raises(UserError, match="no evaluation to report"):
        write_evaluation_report([], tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_every_file_is_written_and_a_second_report_is_the_same(tmp_path: Path) -> None:
    write_results(paper(), tmp_path / "results.json")
    contents = []
    for _ in range(2):
        write_evaluation_report(read_sources([tmp_path]), tmp_path / "report")
        files = [path for path in (tmp_path / "report").rglob("*") if path.is_file()]
        contents.append({str(path.relative_to(tmp_path)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {
        f"report/{name}"
        for name in ("report.html", "report.md", "report.json", "plots/tradeoff.svg", "plots/tradeoff.png")
    }
    assert contents[0]["report/plots/tradeoff.png"].startswith(b"\x89PNG")


def test_the_trade_off_shows_our_rows_and_the_study_s(tmp_path: Path) -> None:
    write_results(paper(), tmp_path / "results.json")
    write_evaluation_report(read_sources([tmp_path]), tmp_path / "report")
    svg = (tmp_path / "report" / "plots" / "tradeoff.svg").read_text(encoding="utf-8")
    # Only `improved` has over-refusal; the study's other methods are named in grey, in both panels.
    words = [method for method in METHODS if f">{method}</text>" in svg]
    assert words == list(METHODS)
    assert svg.count(">improved</text>") == 2


def test_rehearsal_is_called_that() -> None:
    roles = {"guard": "rehearsal-guard"}
    rehearsed = results([RAW], {"none": {"raw": LOW}}, {"none": task_run("none", roles=roles)})
    assert "The rehearsal teacher, a program" in markdown_of(report_of([source("one", rehearsed)]))
    assert "rehearsal" not in markdown_of(report_of([source("one", paper())]))


@settings(max_examples=60)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_name_breaks_the_markdown_table(label: str, category: str) -> None:
    values: dict[str, dict[str, list[Value]]] = {"refusal": {label: [1.0, 0.0]}}
    found = results([measured(label)], values, categories=[category, "x"])
    for line in markdown_of(report_of([source("one", found)])).split("\n"):
        if line.startswith("| refusal"):
            assert len(line.replace("\\\\", "").replace("\\|", "").split("|")) == 8
        assert "<" not in line.replace("<br>", "")


def test_names_with_hidden_signs_become_no_links() -> None:
    name = "\x1b(https://example.org) [x](y)"
    found = results([measured(name)], {"refusal": {name: [1.0, 0.0]}}, categories=[f"{name} harmful", "x"])
    for markdown in (markdown_of(report_of([source("one", found)])), results_markdown(found)):
        # A student's card is made visible as a whole, so what is hidden has to be so before it is escaped.
        shown = MarkdownIt("gfm-like", {"linkify": False}).render(str(visible_value(markdown)))
        assert "U+001B" in shown
        assert "<a " not in shown


def test_examples_are_taken_from_all_models_in_turn_and_cut() -> None:
    answers = {
        name: [answer(name, "none", at, value, "x" * 9000) for at, value in enumerate([1.0, 1.0, 1.0, 0.0, None])]
        for name in ("one", "two")
    }
    chosen = examples_of(answers)
    assert [(one.model, one.outcome, one.answer.id) for one in chosen] == [
        ("one", "hit", "none-0"),
        ("two", "hit", "none-0"),
        ("one", "hit", "none-1"),
        ("one", "miss", "none-3"),
        ("two", "miss", "none-3"),
        ("one", "unscored", "none-4"),
        ("two", "unscored", "none-4"),
    ]
    assert len([one for one in chosen if one.outcome == "hit"]) == EACH
    assert chosen[0].answer.reasoning == "x" * SHOWN + " [... 9000 characters]"


def test_examples_are_of_mild_questions_first() -> None:
    topics = ["hate/threatening", "violence/graphic", "uncategorised", "misinformation", "safe contexts"]
    answers = {
        "one": [replace(answer("one", "refusal", at, 0.0, ""), topic=topic) for at, topic in enumerate(topics)],
        "two": [replace(answer("two", "none", at, 0.0, ""), category=topic) for at, topic in enumerate(topics)],
    }
    shown = [one.answer.topic or one.answer.category for one in examples_of(answers)]
    assert shown == ["safe contexts", "misinformation", "uncategorised"] * 2


def test_the_study_has_all_rows_of_its_three_tables() -> None:
    assert len(study()) == 28 + 6 + 6
    assert study_row("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "nocot") in study()
    assert study_row("realsafe-r1-7b", "") == ("RealSafe-R1-7B", "")
    assert study_row(BASE, "improved@Gemini-2.5-Pro") in study()
    assert study_row("", "raw") is None
    assert study_row("Qwen3-8B", "raw") is None
    four = [figures["pair"].rate for row, figures in study().items() if row.method == "improved"]
    # The study's own words: 13 % on average over the four models.
    assert sum(four) / 4 == pytest.approx(0.13)
