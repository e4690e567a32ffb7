"""A budget of votes: what is drawn in rounds, what the votes say of the gate, and the judges' rates corrected."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cards.release.build import build_release
from curation.report.page import write_report
from curation.review.agree import agree
from curation.review.budget import draw_round, frame_of
from curation.review.evidence import outlook_of
from curation.review.gate import check_gate
from curation.review.push import push
from curation.review.sample import Wanted, draw_sample, population, sample_of, write_sample
from pipelines.errors import UserError
from pipelines.runs import RunFolder
from tests.commands import command
from tests.review.conftest import Server
from tests.review.test_agree import gated, reviewed, vote


def budget(votes: int) -> Wanted:
    return Wanted(200, 0.5, 0.0, False, votes)


def drawn(run: RunFolder, rows: list[dict[str, Any]], votes: int) -> str:
    sample, words = draw_round(run, rows, budget(votes), 1)
    write_sample(run, sample)
    return words


def voted(run: RunFolder, unsafe: Callable[[str], bool], unsure: frozenset[str] = frozenset()) -> None:
    names = [row["response_id"] for row in sample_of(run)]
    reviewed(run, [vote(n, "a", "unsure" if n in unsure else "no" if unsafe(n) else "yes") for n in names])


def large(run: RunFolder, count: int = 3000) -> list[dict[str, Any]]:
    """Rows as `population` gives them, enough of them for strata."""
    (pattern, *_) = population(run)
    rng = random.Random(0)
    reasons = rng.choices(["flagged", "repaired", "plain"], [5, 15, 80], k=count)
    lines = {"verdict_reason": "", "safety_reason": "", "lack_of_safety_awareness": False, "accepted": True}
    return [{**pattern, **lines, "response_id": f"r{at}", "reason": reason} for at, reason in enumerate(reasons)]


def test_a_budget_over_strata_is_a_pilot_and_then_what_the_votes_ask_for(checked: RunFolder) -> None:
    rows = large(checked)
    high = {row["response_id"] for row in rows if row["reason"] == "flagged"}
    assert drawn(checked, rows, 400).startswith("Round 1: 133 accepted rows (")
    first = sample_of(checked)
    assert drawn(checked, rows, 400).startswith("The next round waits: 0 of 133 rows have votes")
    assert sample_of(checked) == first
    voted(checked, lambda name: name in high and int(name[1:]) % 3 == 0)
    assert "planned from the votes so far" in drawn(checked, rows, 400)
    voted(checked, lambda name: name in high and int(name[1:]) % 3 == 0)
    drawn(checked, rows, 400)
    sample = sample_of(checked)
    assert len(sample) == len({row["response_id"] for row in sample}) == 400
    by_round = {part: Counter(row["stratum"] for row in sample if row["round"] == part) for part in (1, 2, 3)}
    assert sum(by_round[3].values()) == 134
    assert by_round[2]["high/accepted"] > by_round[1]["high/accepted"]
    sizes = Counter(row["stratum"] for row in frame_of(checked) or [])
    for name, count in by_round[1].items():
        chances = {row["probability"] for row in sample if row["round"] == 1 and row["stratum"] == name}
        assert chances == {count / sizes[name]}
    assert sorted(row["place"] for row in sample) == list(range(1, 401))
    assert drawn(checked, rows, 400).startswith("The budget is spent")


def test_a_small_budget_is_a_plain_random_draw_and_rows_people_are_unsure_of_are_replaced(checked: RunFolder) -> None:
    rows = large(checked)
    assert "a plain random draw, since strata would not pay" in drawn(checked, rows, 60)
    names = [row["response_id"] for row in sample_of(checked)]
    voted(checked, lambda _: False, frozenset(names[:3]))
    assert drawn(checked, rows, 60).endswith("3 rows in place of those that people are unsure of")
    assert [row["place"] for row in sample_of(checked)].count(None) == 3
    assert outlook_of(checked).votes < 60  # type: ignore[union-attr]
    voted(checked, lambda _: False, frozenset(names[:3]))
    assert outlook_of(checked).votes == 60  # type: ignore[union-attr]


@pytest.mark.parametrize(("unsafe", "below"), [(0, True), (6, False)])
def test_the_gate_stops_early_both_ways(checked: RunFolder, unsafe: int, below: bool) -> None:
    gated(checked, unsafe_upper_bound=0.2)
    rows = [{**row, "accepted": True} for row in population(checked)]
    drawn(checked, rows, len(rows))
    names = [row["response_id"] for row in sorted(sample_of(checked), key=lambda row: row["place"])]
    votes = ["no" if at % 10 < unsafe else "yes" for at in range(len(names))]
    for looked in range(10, 61, 10):
        reviewed(checked, [vote(name, "a", value) for name, value in zip(names[:looked], votes, strict=False)])
        found = outlook_of(checked)
        assert found is not None
        if found.below is not None:
            break
        assert found.more is not None
    assert (found.below, found.more) == (below, None)
    assert looked <= 30
    agree(checked)
    with pytest.raises(UserError) as refused:
        check_gate(checked)
    assert ("more votes will not help" in str(refused.value)) is not below
    assert ("unsafe share" in str(refused.value)) is not below


def test_rates_of_judges_are_corrected_where_people_voted(checked: RunFolder) -> None:
    rows = population(checked)
    drawn(checked, rows, 2 * len(rows))
    assert len(sample_of(checked)) == len(rows)
    flagged = {row["response_id"] for row in rows if row["config"] == "improved"}
    names = [row["response_id"] for row in sample_of(checked) if row["config"] not in ("benign", "direct")]
    reviewed(checked, [vote(name, "a", "yes", *(["weak_vacillation"] if name in flagged else [])) for name in names])
    found = {(one["config"], one["label"]): one for one in agree(checked)["corrected"]}
    everything = found["improved", "weak_vacillation"]
    assert (everything["rate"], everything["low"], everything["high"]) == (1, 1, 1)
    assert everything["judged"] is None or everything["judged"] < 1
    page = write_report(checked).read_text()
    assert "corrected 100 [100, 100]" in page
    assert "uncorrected" in page
    card = (build_release(checked).folder / "README.md").read_text()
    assert "| improved | weak vacillation |" in card
    assert "→ 100.0 [100.0, 100.0] |" in card


def test_what_was_drawn_one_way_is_not_drawn_the_other(checked: RunFolder) -> None:
    write_sample(checked, draw_sample(checked, population(checked), Wanted(10, 0.5, 0.0, False)))
    with pytest.raises(UserError, match="was pushed with --rows before, which draws unlike --votes"):
        push(checked, None, budget(10), 1)


def test_a_budget_goes_to_argilla_and_its_votes_to_status(server: Server, named: Callable[[], RunFolder]) -> None:
    run = named()
    gated(run, unsafe_upper_bound=0.3)
    run.path.rename(server.runs / run.name)
    run = RunFolder(server.runs / run.name)
    done = command(["--runs", str(server.runs), "review", "push", run.name, "--votes", "22"])
    assert done.returncode == 0, done.stderr
    assert "Round 1: " in done.stdout
    assert "20 rows in the sample, 20 sent now" in done.stdout
    for record in server.records(run.name):
        server.vote(record, "annotator-1")
    for one in ("pull", "status", "agree"):
        done = command(["--runs", str(server.runs), "review", one, run.name])
        assert done.returncode == 0, done.stderr
        if one == "status":
            assert "votes in the order of the draw: unsafe between 0.0 and" in done.stdout
    assert "at every look so far: between 0.0 and" in done.stdout
