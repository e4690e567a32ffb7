"""Figures on people and judges: known votes give known figures, and the gate obeys them."""

import json
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cards.release.build import build_release
from curation.quality.checks import check
from curation.report.page import write_report
from curation.review.agree import agree
from curation.review.apply import apply
from curation.review.majority import majority_of
from curation.review.push import ties_of
from curation.review.sample import Wanted, counts_of, draw_sample, population, sample_of, write_sample
from curation.sql.views import REVIEWS, open_views
from pipelines.errors import UserError
from pipelines.records import PATTERNS, Verdict, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.settings.config import Requires, load_config, save_config
from pipelines.statistics import weighted_scores, wilson, wilson_share

WANTED = Wanted(rows=40, random_share=0.5, overlap=0.0, assisted=False)


def vote(response_id: str, annotator: str, safe: str = "yes", *patterns: str, assisted: bool = False) -> dict[str, Any]:
    return {
        "response_id": response_id,
        "annotator": annotator,
        "assisted": assisted,
        "safe": safe,
        **{name: name in patterns for name in PATTERNS},
        "no_pattern": not patterns,
        "over_refusal": None,
        "quality": 3,
        "comment": "",
    }


def reviewed(run: RunFolder, votes: list[dict[str, Any]]) -> None:
    run.write("reviews", pa.Table.from_pylist(votes, schema=REVIEWS))


def sampled(run: RunFolder, wanted: Wanted = WANTED) -> list[dict[str, Any]]:
    rows = draw_sample(run, population(run), wanted)
    write_sample(run, rows)
    return rows


SIZES = st.dictionaries(
    st.sampled_from(
        [
            f"{reason}/{config}/accepted"
            for reason in ("disagreement", "flagged", "repaired", "plain")
            for config in "abc"
        ]
    ),
    st.integers(1, 30),
    min_size=1,
)


@given(SIZES, st.integers(1, 200), st.floats(0, 1))
def test_a_sample_has_the_rows_asked_for_and_no_stratum_gives_more_than_it_has(
    sizes: dict[str, int], rows: int, share: float
) -> None:
    counts = counts_of(sizes, Wanted(rows, share, 0, False))
    assert sum(counts.values()) == min(rows, sum(sizes.values()))
    assert all(0 <= counts[name] <= size for name, size in sizes.items())


def test_doubtful_rows_are_sampled_more_often_than_plain_ones() -> None:
    sizes = {"disagreement/a/accepted": 20, "flagged/a/rejected": 50, "plain/a/accepted": 930}
    counts = counts_of(sizes, Wanted(100, 0.5, 0, False))
    assert counts["disagreement/a/accepted"] == 20
    assert counts["flagged/a/rejected"] > 25
    assert counts["plain/a/accepted"] >= 40


def test_a_larger_sample_holds_the_smaller_one_and_nothing_superseded(checked: RunFolder) -> None:
    small = {row["response_id"] for row in sampled(checked)}
    large = {row["response_id"] for row in sampled(checked, Wanted(60, 0.5, 0.0, False))}
    assert small < large
    with open_views(checked) as db:
        gone = {name for (name,) in db.sql("SELECT response_id FROM repairs WHERE NOT chosen").fetchall()}
        fixed = {name for (name,) in db.sql("SELECT response_id FROM responses WHERE teacher = ''").fetchall()}
    assert not large & (gone | fixed)


def test_agreement_of_known_votes(checked: RunFolder) -> None:
    names = [row["response_id"] for row in sampled(checked)][:10]
    # a and b agree on 8 of 10; by chance they would on (5*5 + 5*5)/100.
    first = ["no"] * 5 + ["yes"] * 5
    second = ["no"] * 4 + ["yes"] * 5 + ["no"]
    votes = [vote(name, "a", one) for name, one in zip(names, first, strict=True)]
    votes += [vote(name, "b", one) for name, one in zip(names, second, strict=True)]
    reviewed(checked, votes)
    found = agree(checked)
    (safety,) = [line for line in found["agreement"] if line["question"] == "safe"]
    assert safety["percent"]["value"] == 0.8
    assert safety["kappa"]["value"] == pytest.approx(0.6)
    # Krippendorff's alpha for two people without gaps: 1 - (n - 1) * disagreements / (pairs of unlike values).
    assert safety["alpha"]["value"] == pytest.approx(1 - 19 * 2 / (10 * 10))
    assert safety["percent"]["low"] <= 0.8 <= safety["percent"]["high"]
    assert [(one["annotator"], one["rows"], one["differs"]) for one in found["deviation"]] == [
        ("a", 10, 2),
        ("b", 10, 2),
    ]
    assert json.loads((checked.path / "agreement.json").read_text())["rows"] == 10
    page = write_report(checked).read_text()
    assert "2 people gave 20 votes on 10 rows" in page
    assert '<td class="n">80 [' in page


def test_the_unsafe_share_weighs_rows_by_what_they_stand_for(checked: RunFolder) -> None:
    rows = [row for row in sampled(checked) if row["accepted"]]
    doubtful = {row["stratum"] for row in rows if row["reason"] != "plain"}
    reviewed(checked, [vote(row["response_id"], "a", "no" if row["stratum"] in doubtful else "yes") for row in rows])
    share = agree(checked)["unsafe_share"]
    with_rows = {row["stratum"]: row["stratum_rows"] for row in rows}
    unsafe = sum(size for name, size in with_rows.items() if name in doubtful)
    assert share["rate"] == pytest.approx(unsafe / sum(with_rows.values()))
    assert share["low"] < share["rate"] < share["high"]
    assert share["effective_rows"] <= share["rows"] == len(rows)


def test_votes_with_the_judges_labels_in_sight_never_score_them(checked: RunFolder) -> None:
    rows = sampled(checked)
    reviewed(checked, [vote(row["response_id"], "a", assisted=True) for row in rows])
    found = agree(checked)
    assert found["assisted_votes"] == len(rows)
    assert all(line["n"] == 0 for line in found["judges"])
    assert found["unsafe_share"]["rate"] is None


def test_judges_are_scored_against_the_majority(checked: RunFolder) -> None:
    # The rules leave most rows open; a judge that tells every row is written in their place.
    verdicts = from_table(Verdict, checked.read("verdicts"))
    verdicts = [replace(one, strong_vacillation=place % 3 == 0, reason="") for place, one in enumerate(verdicts)]
    checked.write("verdicts", to_table(Verdict, verdicts))
    flagged = {one.response_id: one.strong_vacillation for one in verdicts}
    names = [row["response_id"] for row in sampled(checked)]
    reviewed(checked, [vote(name, "a", "yes", *(["strong_vacillation"] if flagged[name] else [])) for name in names])
    scores = {line["label"]: line for line in agree(checked)["judges"]}
    assert {flagged[name] for name in names} == {True, False}
    assert scores["strong_vacillation"]["n"] == len(names)
    assert scores["strong_vacillation"]["unscored"] == 0
    assert scores["strong_vacillation"]["kappa"]["value"] == pytest.approx(1)


def test_nobody_has_voted_is_told(checked: RunFolder) -> None:
    with pytest.raises(UserError, match="Run first: saferthoughts review pull"):
        agree(checked)
    reviewed(checked, [])
    with pytest.raises(UserError, match="Nobody has voted"):
        agree(checked)


def test_people_overrule_the_judges_both_ways_and_ties_go_back(checked: RunFolder) -> None:
    sampled(checked)
    accepted = checked.read("accepted")["response_id"].to_pylist()
    with open_views(checked) as db:
        (flagged,) = db.sql(
            "SELECT response_id FROM rejected JOIN responses USING (response_id) GROUP BY response_id "
            "HAVING count(*) = 1 AND any_value(check_name) = 'pattern_flagged' ORDER BY 1 LIMIT 1"
        ).fetchall() or [(None,)]
    sample = [row["response_id"] for row in sample_of(checked) if row["response_id"] in accepted]
    bad, tied = sample[0], sample[1]
    votes = [vote(bad, "a", "no"), vote(bad, "b", "no"), vote(bad, "c", "yes"), vote(tied, "a", "no"), vote(tied, "b")]
    if flagged[0]:
        votes.append(vote(flagged[0], "a"))
    reviewed(checked, votes)
    done = apply(checked)
    check(checked)
    now = set(checked.read("accepted")["response_id"].to_pylist())
    assert (done.unsafe, done.ties) == (1, 1)
    assert bad not in now
    assert tied in now
    assert flagged[0] is None or flagged[0] in now
    (reason,) = [row["reason"] for row in checked.read("rejected").to_pylist() if row["response_id"] == bad]
    assert reason == "human"
    assert [row["response_id"] for row in ties_of(checked, sample_of(checked))] == [tied]
    released = build_release(checked)
    assert released.rows


def gated(run: RunFolder, **wanted: Any) -> None:
    config = load_config(run)
    release = config.release.model_copy(update={"requires": Requires(**wanted)})
    save_config(run, config.model_copy(update={"release": release}))


def test_a_release_obeys_its_gate_and_tells_what_is_missing(checked: RunFolder) -> None:
    gated(checked, reviewed=20, judge_kappa=0.6, unsafe_upper_bound=0.2)
    with pytest.raises(UserError, match="asks for people's votes, and none are evaluated") as refused:
        build_release(checked)
    assert refused.value.exit_code == 1
    rows = sampled(checked)
    with open_views(checked) as db:
        kept = {name for (name,) in db.sql("SELECT response_id FROM accepted").fetchall()}
    reviewed(checked, [vote(row["response_id"], "a", "no") for row in rows[:5]])
    agree(checked)
    with pytest.raises(UserError) as refused:
        build_release(checked)
    assert "5 rows are reviewed of the 20 required" in str(refused.value)
    assert "the unsafe share is" in str(refused.value)
    assert "the votes are not applied" in str(refused.value)
    assert not (checked.path / "release").exists()
    reviewed(checked, [vote(row["response_id"], "a", "yes" if row["response_id"] in kept else "no") for row in rows])
    found = agree(checked)
    gated(checked, reviewed=20, unsafe_upper_bound=math.ceil(100 * found["unsafe_share"]["high"]) / 100)
    apply(checked)
    check(checked)
    released = build_release(checked)
    card = (released.folder / "README.md").read_text()
    assert f"1 person gave {len(rows)} votes on {len(rows)} rows" in card
    assert "no person has looked at them" not in card


def test_figures_of_other_votes_do_not_open_the_gate(checked: RunFolder) -> None:
    rows = sampled(checked)
    reviewed(checked, [vote(row["response_id"], "a") for row in rows])
    agree(checked)
    apply(checked)
    check(checked)
    gated(checked, reviewed=10)
    build_release(checked)
    reviewed(checked, [vote(row["response_id"], "a") for row in rows[:12]])
    with pytest.raises(UserError, match="none are evaluated yet"):
        build_release(checked)


@given(st.lists(st.sampled_from(["yes", "no"]), max_size=9))
def test_a_majority_is_more_votes_than_any_other(votes: list[str]) -> None:
    expected = None if votes.count("yes") == votes.count("no") else max(("yes", "no"), key=votes.count)
    assert majority_of(votes) == expected


@given(st.integers(1, 200), st.data())
def test_the_weighted_interval_is_wilsons_at_whole_numbers(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    ours, exact = wilson_share(count / n, n), wilson(count, n)
    assert (ours.low, ours.high) == (pytest.approx(exact.low, abs=1e-9), pytest.approx(exact.high, abs=1e-9))


def test_weights_stand_for_copies_of_rows() -> None:
    rng = random.Random(0)
    judged = [rng.random() < 0.5 for _ in range(40)]
    right = [one if rng.random() < 0.8 else not one for one in judged]
    weights = [rng.randint(1, 4) for _ in judged]
    weighted = weighted_scores(judged, right, np.array(weights, np.float64))
    copies = [
        pair for pair, weight in zip(zip(judged, right, strict=True), weights, strict=True) for _ in range(weight)
    ]
    plain = weighted_scores([a for a, _ in copies], [b for _, b in copies], np.ones(len(copies)))
    for name, interval in weighted.items():
        assert interval.rate == pytest.approx(plain[name].rate)
        assert interval.low <= interval.rate <= interval.high
