"""The intervals of people's review keep their promise in simulated reviews; seeded, so that a run repeats exactly."""

import doctest

import numpy as np
import pytest

from benchmarks.calibration import (
    Setting,
    corrected_intervals,
    few_rows,
    people,
    random_intervals,
    reviews,
    selective,
)
from curation.review import people as people_module
from curation.review.estimates import calibration, corrected, plan, sequence, stratified, two_coin
from curation.review.estimates import selective as selective_estimate
from curation.review.estimates.selective import decide_alone
from curation.review.estimates.sequence import Vote, Wealth, more_votes
from curation.review.estimates.stratified import Shares, stratified_share
from curation.review.estimates.two_coin import two_coins

RUNS = 1000
STRATA = ((100, 300, 1600), (0.15, 0.03, 0.005))
SETTINGS = [
    Setting("rare, at random", (200, 800, 9000), (0.002, 0.002, 0.002), 85),
    Setting("strata, good judge", *STRATA, 300),
    Setting("strata, blind where risk is low", (300, 500, 4200), (0.0, 0.0, 0.05), 300),
    Setting("strata, people err", *STRATA, 200, 0.05),
]


def covered(shares: Shares, truth: float) -> float:
    return float(np.mean((shares.low <= truth + 1e-12) & (shares.high >= truth - 1e-12)))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_published_intervals_hold_the_truth(setting: Setting) -> None:
    rng = np.random.default_rng(0)
    truth = setting.unsafe().sum() / sum(setting.sizes)
    found = reviews(setting, RUNS, rng)
    assert covered(found.shares, truth) >= 0.94
    assert 1 - found.too_low.mean() >= 0.95
    assert 1 - found.too_high.mean() >= 0.95
    assert covered(corrected_intervals(setting, RUNS, rng), truth) >= 0.94


def test_a_wilson_interval_fails_where_the_exact_one_holds() -> None:
    """The check above can fail: 85 votes at 0.2 % are where Wilson's interval is known to."""
    truth = SETTINGS[0].unsafe().sum() / sum(SETTINGS[0].sizes)
    exact, score = random_intervals(SETTINGS[0], RUNS, np.random.default_rng(0))
    assert covered(exact, truth) >= 0.94
    assert covered(score, truth) < 0.9


def test_rows_that_people_have_seen_are_known() -> None:
    everything = stratified_share([10, 30], [10, 30], [1, 2])
    assert (everything.rate, everything.low, everything.high) == pytest.approx((0.075, 0.075, 0.075))
    unseen = stratified_share([10, 30], [10, 0], [1, 0])
    assert (unseen.low, unseen.high) == pytest.approx((0.025, 0.775))


def test_looking_after_every_vote_does_not_open_the_gate_at_its_bound() -> None:
    """Of sets that are exactly as unsafe as the bound allows, an interval looked at 40 times passes far too many."""
    rng = np.random.default_rng(0)
    votes = rng.random((400, RUNS)) < 0.03
    wealth, peeked = Wealth(np.full(RUNS, 0.03), 10**6), np.zeros(RUNS, bool)
    for number, bad in enumerate(votes, 1):
        wealth.take(Vote(1.0, 1.0, True, bad))
        if number % 10 == 0:
            peeked |= stratified_share([10**6], [number], votes[:number].sum(0)[:, None], level=0.9).high < 0.03
    assert wealth.below.mean() <= 0.05
    assert peeked.mean() > 0.08


def test_the_votes_that_are_likely_needed_are_about_those_that_were() -> None:
    wealth = Wealth([0.03], 10_000)
    guess = more_votes(wealth, [1.0], [1.0], [0.0])
    for _ in range(guess or 0):
        assert not wealth.below[0]
        wealth.take(Vote(1.0, 1.0, True, False))
    assert wealth.below[0]
    assert more_votes(Wealth([0.03], 200), [1.0], [1.0], [0.03]) is None


def test_corrected_rates_of_few_rows_hold_the_truth() -> None:
    assert few_rows(150) >= 0.9  # of 576 settings the worst; 42 % before a row was added


def test_judges_that_decide_alone_keep_the_bound_and_decide_where_they_are_good() -> None:
    found = selective(60)
    assert found["worst"] <= 0.1  # 5 % is promised; of 60 reviews more than 6 have one chance in 30
    assert found["alone"]["confidence says nothing, 0.5 % wrong"] > 0.7
    assert found["alone"]["confidence says nothing, 2.1 % wrong"] < 0.1
    assert decide_alone([0.5], [0.5] * 100, [False] * 100, 0.02).needed == 149


def test_a_person_far_from_the_others_is_found_and_each_ones_errors_are_measured() -> None:
    found = people(60)
    assert found["off"] < 0.06
    assert found["found"] > 0.9
    assert found["alarms"] <= 0.1
    assert two_coins([{"a": True, "b": False}] * 50) is None


@pytest.mark.parametrize(
    "module",
    [corrected, plan, sequence, stratified, calibration, two_coin, selective_estimate, people_module],
    ids=lambda module: module.__name__,
)
def test_examples_of_the_estimators_are_true(module: object) -> None:
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed
