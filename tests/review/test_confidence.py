"""Judges' confidence against people's votes: the plot of its calibration, and the rows that judges may decide alone."""

import random

import pyarrow as pa

from cards.release.build import build_release
from curation.report.page import write_report
from curation.review.agree import agree
from curation.review.sample import Wanted, draw_sample, population, write_sample
from pipelines.judges.scoring import STRESS_FILE
from pipelines.judges.stress import stress
from pipelines.runs import RunFolder
from tests.commands import command
from tests.review.test_agree import reviewed, vote


def sure_of(run: RunFolder, values: dict[str, float]) -> None:
    """Give the judges a confidence in each verdict, and the rules a verdict on every row."""
    rows = run.read("judgements").to_pylist()
    for row in rows:
        row["confidence"] = values.get(row["response_id"])
        for name in ("lack_of_safety_awareness", "strong_vacillation", "weak_vacillation", "harmful_additions"):
            row[name] = bool(row[name])
        row["inconsistency"] = bool(row["inconsistency"])
    run.write("judgements", pa.Table.from_pylist(rows, schema=run.read("judgements").schema))
    rows = run.read("verdicts").to_pylist()
    for row in rows:
        row |= {"safety": "safe", "safety_reason": ""}
    run.write("verdicts", pa.Table.from_pylist(rows, schema=run.read("verdicts").schema))


def test_confidence_is_held_to_votes_and_says_which_rows_judges_may_decide(checked: RunFolder) -> None:
    rows = population(checked)
    write_sample(checked, draw_sample(checked, rows, Wanted(len(rows), 1.0, 0.0, False)))
    names = sorted(row["response_id"] for row in rows)
    chance = random.Random(0)
    sure = {name: 0.95 if at % 2 else 0.55 for at, name in enumerate(names)}
    wrong = {name for name in names if sure[name] < 0.9 and chance.random() < 0.8}
    reviewed(checked, [vote(name, "a", "no" if name in wrong else "yes") for name in names])
    found = command(["--runs", str(checked.path.parent), "review", "agree", checked.name, "--max-error", "0.2"])
    assert (found.returncode, "No verdict has a confidence" in found.stderr) == (2, True), found.stderr
    assert agree(checked)["confidence"] is None
    sure_of(checked, sure)
    verdicts = {row["response_id"]: row["safety"] for row in checked.read("verdicts").to_pylist()}
    assert set(verdicts.values()) == {"safe"}

    done = command(["--runs", str(checked.path.parent), "review", "agree", checked.name, "--max-error", "0.2"])
    assert done.returncode == 0, done.stderr
    assert "expected calibration error" in done.stdout
    assert f"of {len(rows)} rows alone" in done.stdout
    facts = agree(checked, 0.2)
    assert sum(one["rows"] for one in facts["confidence"]["bins"]) == len(names)
    alone = {row["response_id"] for row in checked.read("selective").to_pylist() if row["alone"]}
    assert alone
    assert not alone & wrong
    assert len(alone) == facts["selective"]["alone"]
    assert facts["selective"]["checked"] >= facts["selective"]["needed"]
    page = write_report(checked).read_text()
    assert "expected calibration error" in page
    assert "The size of a dot" in page
    none = command(["--runs", str(checked.path.parent), "review", "agree", checked.name, "--max-error", "0.001"])
    assert "no row alone: too few votes" in none.stdout
    odd = command(["--runs", str(checked.path.parent), "review", "agree", checked.name, "--max-error", "2"])
    assert (odd.returncode, "--max-error 2: a share between 0 and 1" in odd.stderr) == (2, True)


def test_card_and_report_show_how_steady_the_judges_are(checked: RunFolder) -> None:
    facts = stress(checked, 10)
    assert {line["judge"] for line in facts["lines"]} == {"rules"}
    assert "in eight changes that keep the meaning" in write_report(checked).read_text()
    release = build_release(checked)
    assert "| rules | planted verdict |" in (release.folder / "README.md").read_text()
    assert (checked.path / STRESS_FILE).exists()
