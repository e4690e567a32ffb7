"""Rows without reasoning that somebody else wrote: an empty thought proves nothing, so their safety is judged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cards.release.build import build_release
from cards.verify import verify
from curation.datasets.imported import import_dataset
from curation.overlap.duplicates import find_duplicates
from curation.quality.checks import CheckResult, check
from curation.report.data import figures_of
from pipelines.errors import Incomplete
from pipelines.judges.stage import judge
from pipelines.prompts.variant import load_variants
from pipelines.records import Response, Verdict, from_table
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from pipelines.settings.judge import Judge
from pipelines.settings.teacher import Teacher
from pipelines.sources import Source
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run

OURS = load_variants()["nocot"].fixed_answer or ""
THEIRS = "I'm sorry, I can't assist with that request."
UNSAFE = "Sorry, I can't help with that. The dose is [detail withheld]."
STUDY = Path(__file__).parents[3] / "shared" / "data" / "lrm_study_nocot.jsonl"


def imported(folder: Path, answers: list[str]) -> RunFolder:
    lines = [{"prompt": f"Question {n}?", "response": f"<think>\n\n</think>\n\n{a}"} for n, a in enumerate(answers)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return import_dataset(folder / "runs", "foreign", Source(hub=str(path)), {}, "harmful", "nocot")


def guarded(run: RunFolder, url: str) -> RunFolder:
    """The run with a guard beside the rules."""
    config = load_config(run)
    own = Judge(kind="safety", teacher="own", form="llamaguard")
    changes = {
        "judges": {**config.judges, "own": own},
        "judge_teachers": {"own": Teacher(base_url=url, model="guard", retries=0)},
        "judging": config.judging.model_copy(update={"judges": ("rules", "own")}),
    }
    save_config(run, config.model_copy(update=changes))
    return run


def guard(body: dict[str, Any]) -> str:
    return "unsafe\nS9" if "The dose is" in body["messages"][-1]["content"] else "safe"


def objections(run: RunFolder) -> dict[str, set[tuple[str, str]]]:
    """What was objected to, by answer."""
    answers = {row.response_id: row.answer for row in from_table(Response, run.read("responses"))}
    found: dict[str, set[tuple[str, str]]] = {answer: set() for answer in answers.values()}
    for row in run.read("rejected").to_pylist():
        found[answers[row["response_id"]]].add((row["check_name"], row["reason"]))
    return found


def test_safety_of_somebody_elses_answer_without_reasoning_is_judged(
    tmp_path: Path, scripted: Callable[..., Any]
) -> None:
    with scripted(guard) as own:
        run = guarded(imported(tmp_path, [OURS, THEIRS, UNSAFE]), own.url)
        done = judge(run)
        asked = [body["messages"][-1]["content"] for body in own.requests]
    # The exact text that this tool writes is exempt, and no other; a first question goes before.
    assert {THEIRS, UNSAFE} <= set(asked)
    assert OURS not in asked
    assert (done.fixed, done.without_reasoning, done.unscored, done.unsafe) == (1, 2, 0, 1)
    assert set(done.flagged.values()) == {None}
    check(run)
    assert objections(run) == {OURS: set(), THEIRS: set(), UNSAFE: {("unsafe", "unsafe")}}
    patterns = {item["label"]: item["before"] for item in figures_of(run)["patterns"]}
    assert patterns["any_pattern"]["rate"] is None
    assert (patterns["unsafe"]["count"], patterns["unsafe"]["of"]) == (1, 2)
    released = build_release(run, license="mit")
    assert verify(released.folder).faults == ()
    card = (released.folder / "README.md").read_text()
    assert "| nocot | 3 | 0 | 1 | 1 |" + " not applicable |" * 6 in card.splitlines()


def test_without_a_judge_of_safety_nobody_has_judged_such_a_row(tmp_path: Path) -> None:
    run = imported(tmp_path, [OURS, THEIRS, UNSAFE])
    output = words_of(Run(run).judge())
    assert "2 without reasoning: patterns not applicable" in output
    assert "unsafe not judged" in output
    assert "nobody looked for unsafe text" in output
    assert {verdict.safety for verdict in from_table(Verdict, run.read("verdicts"))} == {None}
    check(run)
    unjudged = {("unscored", "no reasoning, and no judge of safety")}
    assert objections(run) == {OURS: set(), THEIRS: unjudged, UNSAFE: unjudged}
    with pytest.raises(Incomplete, match="fixed texts only"):
        build_release(run, license="mit")


def test_answers_without_reasoning_are_alike_and_no_duplicates(tmp_path: Path, scripted: Callable[..., Any]) -> None:
    with scripted(guard) as own:
        run = guarded(imported(tmp_path, [THEIRS] * 9), own.url)
        judge(run)
    find_duplicates(run)
    assert check(run).accepted == 9


@pytest.mark.skipif(not STUDY.exists(), reason="the study's rows are not part of the project")
def test_the_studys_own_rows_without_reasoning_are_judged_and_accepted(
    tmp_path: Path, scripted: Callable[..., Any]
) -> None:
    run = import_dataset(tmp_path / "runs", "study", Source(hub=str(STUDY)), {}, "harmful", "nocot")
    with scripted(guard) as own:
        done = judge(guarded(run, own.url))
    assert (done.fixed, done.unscored, done.unsafe) == (0, 0, 0)
    assert done.without_reasoning == done.responses > 400
    checked: CheckResult = check(run)
    assert not {check for check, _ in checked.by_reason} & {"unscored", "exact_duplicate", "unsafe"}
    assert checked.accepted > 0.9 * checked.rows, checked.by_reason
