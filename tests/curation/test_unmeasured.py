"""A figure that nobody measured is "not judged" or null, in terminal, report, charts, card and comparison: never 0."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cards.compare import compare, in_words
from cards.release.build import build_release
from curation.quality.checks import check
from curation.report.charts import charts_of
from curation.report.page import write_report
from curation.report.student import stances
from curation.review.agree import _verdict_on
from eval.report.table import _well_formed
from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.records import PATTERNS, Verdict, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.statistics import wilson
from saferthoughts.cli.release_words import print_comparison
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run
from tests.eval.made_results import answer

# What a cell of findings may hold. "0 [0, 24]" is a share of rows that all have a verdict.
CELL = r"not judged|at least [1-9]\d*|0 of the [1-9]\d* judged|\d+ \[\d+, [1-9]\d*\]"
COUNT = r"not judged|at least [1-9]\d*|0 of the [1-9]\d* judged|\d+"


@pytest.fixture(scope="module")
def by_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that rules alone judged: nobody looked for unsafe, and rules leave most labels open."""
    from pipelines.prompts.stage import start
    from pipelines.settings.options import Options, configured

    options = Options(
        harmful=8, benign=3, seed=3, teacher="rehearsal", variants=("direct", "short", "nocot"), judges=("rules",)
    )
    run = start(tmp_path_factory.mktemp("rules"), "rules", configured(options)).run
    generate(run)
    return run.path


@pytest.fixture
def run(by_rules: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(by_rules, tmp_path / "runs" / "rules")
    return RunFolder.open(tmp_path / "runs", "rules")


def test_the_terminal_counts_what_judges_could_tell(run: RunFolder) -> None:
    line = words_of(Run(run).judge()).splitlines()[0].split("; ")[1]
    assert line.endswith("unsafe not judged")
    for label in PATTERNS:
        assert re.search(rf"\b{label} (?:{COUNT})(?:,|$)", line), (label, line)
    assert "at least" in line


def test_report_and_card_of_a_run_without_a_judge_of_safety(run: RunFolder) -> None:
    judge(run)
    check(run)
    page = write_report(run).read_text()
    figures = json.loads((run.path / "report.json").read_text())
    unsafe = [item["before"] for item in figures["patterns"] if item["label"] == "unsafe"]
    assert [(item["count"], item["rate"], item["low"], item["high"]) for item in unsafe] == [(None,) * 4] * 3
    verdicts = from_table(Verdict, run.read("verdicts"))
    for item in figures["patterns"]:
        if item["before"]["rate"] is not None:
            known = sum(getattr(one, item["label"]) is not None for one in verdicts)
            assert item["before"]["judged"] == item["before"]["of"] <= known
    assert {row["selected"] for row in figures["funnel"]} == {None}
    (table,) = re.findall(r"<h2[^>]*>Risky patterns.*?</table>", page, re.DOTALL)
    for row in table.split("<tr>")[2:]:
        _, *cells = re.findall(r'<td class="n">([^<]*)</td>', row)
        assert all(re.fullmatch(CELL, cell) for cell in cells), cells
        assert cells[-1] == "not judged"
    assert not any(">unsafe<" in chart for chart in charts_of(figures).values())
    assert " 0 %" not in page
    card = (build_release(run).folder / "README.md").read_text()
    rows = re.findall(r"^\| (?:direct|short|benign) \| \d+ \| 0 \| 0 \|(.*)\|$", card, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[0] == "not judged"
        assert all(re.fullmatch(COUNT, cell) for cell in cells), cells
    lineage = json.loads((run.path / "release" / "lineage.json").read_text())
    assert {lineage["funnel"][name]["unsafe"] for name in lineage["funnel"]} == {None}


def test_a_comparison_is_of_the_scored_rows_and_says_how_many_are_not(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(run)
    check(run)
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    old = Path(shutil.copytree(build_release(run).folder, tmp_path / "old"))
    # In a second judging the rules tell one pattern of two rows of `short`, and see it in both.
    short = [row["response_id"] for row in run.read("responses").to_pylist() if row["variant"] == "short"]
    kept = [name for name in short if name in accepted]
    changed = [
        Verdict(**{**row, "weak_vacillation": True}) if row["response_id"] in kept[:2] else Verdict(**row)
        for row in run.read("verdicts").to_pylist()
    ]
    run.write("verdicts", to_table(Verdict, changed))
    new = build_release(run).folder
    found = compare(old, new)
    (drift,) = [one for one in found.drifts if (one.config, one.figure) == ("short", "share of weak vacillation")]
    assert drift.unscored == (len(kept), len(kept) - 2)
    assert drift.after.rate == 1
    # Whatever the others are, it is between two of all and all of them.
    assert drift.after.low == wilson(2, len(kept)).low < 0.5
    assert not drift.measured
    assert not drift.apart
    before, after = in_words(drift)
    assert before == f"not judged [0, 1], {len(kept)} unscored"
    assert after.endswith(f", {len(kept) - 2} unscored")
    plain = next(one for one in found.plain()["drifts"] if one["figure"] == drift.figure and one["config"] == "short")
    assert (plain["before"]["rate"], plain["measured"]) == (None, False)
    print_comparison(compare(new, new))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"short: share of weak vacillation, of the scored rows: {after} to {after}" in printed
    assert "shares of patterns are not compared" in printed


def test_what_judges_leave_open_is_not_safe_beside_peoples_votes() -> None:
    open_ = dict.fromkeys((*PATTERNS, "safety", "compliance"), None) | {"reason": "", "refused": True}
    assert _verdict_on(open_, "unsafe") is None
    assert _verdict_on(open_ | {"inconsistency": True}, "unsafe") is True
    assert _verdict_on(open_ | {"refused": False}, "unsafe") is True
    assert _verdict_on(open_ | dict.fromkeys(PATTERNS, False), "unsafe") is False
    assert _verdict_on(open_ | {"safety": "safe"}, "unsafe") is False


def student(expected: int, *verdicts: bool | None) -> dict[str, Any]:
    """The figures of one model on one group of harmful questions, None for an answer without a verdict."""
    answers = [
        {"model": "after", "category": "heldout harmful", "detail": {} if one is None else {"well_formed": one}}
        for one in verdicts
    ]
    known = [one for one in verdicts if one is not None]
    rate = {
        "model": "after", "group": "heldout harmful", "expected": expected, "hits": float(sum(known)),
        "misses": float(len(known) - sum(known)), "truncated": 0, "unscored": 0, "errored": expected - len(known),
        "rate": {"rate": 0.0, "low": 0.0, "high": 1.0},
    }  # fmt: skip
    return stances(rate, "harmful", answers)


def test_a_group_without_a_verdict_has_no_count_of_refusals() -> None:
    nothing = student(2, None, None)
    names = ("refused", "refused_rate", "well_formed", "well_formed_rate")
    assert [nothing[name] for name in names] == [None] * 4
    some = student(3, True, False, None)
    assert (some["refused"], some["well_formed"], some["well_formed_of"], some["unscored"]) == (1, 1, 2, 1)
    assert some["well_formed_rate"]["rate"] == 0.5


def test_the_terminal_counts_form_of_what_was_answered() -> None:
    failed = answer("after", "refusal", 1, "error", "")
    formed = [replace(failed, detail={"well_formed": one}) for one in (True, False)]
    assert _well_formed([failed]) == "-"
    assert _well_formed([failed, *formed]) == "1/2"
