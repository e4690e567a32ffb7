"""Intervals and the paired test against values worked out by hand or from first principles."""

import random
from itertools import combinations, product
from math import comb, isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipelines.statistics import (
    Confusion,
    Pair,
    clustered_share,
    dependence,
    detectable,
    f1_of,
    kappa_of,
    mcnemar_exact,
    outcome_of,
    paired,
    pass_at_k,
    wilson,
    wilson_share,
)

OUTCOMES = st.sampled_from([True, False, None])


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_matches_its_formula(n: int, share: float) -> None:
    successes = round(share * n)
    z, rate = 1.959963984540054, successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    interval = wilson(successes, n)
    assert interval.rate == rate
    assert interval.low == pytest.approx(centre - half, abs=1e-9)
    assert interval.high == pytest.approx(centre + half, abs=1e-9)


@pytest.mark.parametrize("n", [1, 7, 120, 4096])
def test_wilson_is_scipys_to_the_last_digit(n: int) -> None:
    for successes in {0, 1, n // 3, n}:
        theirs = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
        assert (wilson(successes, n).low, wilson(successes, n).high) == (theirs.low, theirs.high)


def test_wilson_of_none_in_fifty_reaches_seven_percent() -> None:
    interval = wilson(0, 50)
    assert interval.low == 0
    assert round(100 * interval.high, 1) == 7.1


def test_wilson_without_samples_knows_nothing() -> None:
    interval = wilson(0, 0)
    assert isnan(interval.rate)
    assert (interval.low, interval.high) == (0, 1)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 5), (1, 0)])
def test_wilson_refuses_what_is_no_rate(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        wilson(successes, n)


@given(only_first=st.integers(0, 12), only_second=st.integers(0, 12), agree=st.integers(0, 12))
def test_mcnemar_matches_the_coin(only_first: int, only_second: int, agree: int) -> None:
    outcomes = [Pair(True, False)] * only_first + [Pair(False, True)] * only_second + [Pair(True, True)] * agree
    found = mcnemar_exact({str(number): pair for number, pair in enumerate(outcomes)})
    discordant = only_first + only_second
    tail = sum(comb(discordant, k) for k in range(min(only_first, only_second) + 1)) / 2**discordant
    assert (found.pairs, found.only_first, found.only_second) == (len(outcomes), only_first, only_second)
    assert found.p == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.tuples(OUTCOMES, OUTCOMES), max_size=4))
def test_bounds_are_those_of_every_way_of_filling_in(pairs: list[tuple[bool | None, bool | None]]) -> None:
    found = mcnemar_exact({str(number): Pair(*pair) for number, pair in enumerate(pairs)})
    known = [[(True, False) if one is None else (one,) for one in pair] for pair in pairs]
    ways = product(*(list(product(*cell)) for cell in known))
    every = [mcnemar_exact({str(number): Pair(*pair) for number, pair in enumerate(way)}) for way in ways]
    assert found.left_out == sum(None in pair for pair in pairs)
    assert found.pairs + found.left_out == len(pairs)
    assert (found.p_low, found.p_high) == pytest.approx((min(one.p for one in every), max(one.p for one in every)))
    assert found.p_low is not None
    assert found.p_high is not None
    assert found.p_low <= found.p <= found.p_high


def test_test_keeps_its_level_where_verdicts_are_missing_and_counting_them_as_failures_does_not() -> None:
    # Two students that hit 60 % alike; of the second's answers 30 % have no verdict, whatever they were.
    draw = random.Random(7)
    found = {"complete": 0, "as failures": 0, "low bound": 0}
    runs = 400
    for _ in range(runs):
        pairs = {}
        for number in range(60):
            first, second = draw.random() < 0.6, draw.random() < 0.6
            pairs[str(number)] = Pair(first, None if draw.random() < 0.3 else second)
        test = mcnemar_exact(pairs)
        failures = mcnemar_exact({name: Pair(pair.first, bool(pair.second)) for name, pair in pairs.items()})
        found["complete"] += test.p < 0.05
        found["as failures"] += failures.p < 0.05
        found["low bound"] += (test.p_high or 0) < 0.05
    # The exact test is conservative: at most 5 %, and three standard errors of 400 runs.
    assert found["complete"] / runs < 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert found["low bound"] <= found["complete"]
    assert found["as failures"] / runs > 0.3


@pytest.mark.parametrize(
    ("values", "due", "outcome"),
    [
        ([1.0], 1, True),
        ([0.0], 1, False),
        ([None], 1, None),
        ([], 1, None),
        ([1.0, 1.0, None], 3, True),
        ([0.0, 0.0, None], 3, False),
        ([1.0, 0.0, None], 3, None),
        ([1.0, 1.0], 4, None),
        ([0.0, 0.0], 4, False),
        ([1.0, 1.0, 1.0], 4, True),
    ],
)
def test_question_is_decided_by_most_of_its_answers(values: list[float | None], due: int, outcome: bool | None) -> None:
    assert outcome_of(values, due) is outcome


def test_paired_joins_by_id_and_not_by_position() -> None:
    assert paired({"a": True, "b": False}, {"b": True, "a": False}) == {"a": Pair(True, False), "b": Pair(False, True)}


def test_paired_refuses_a_sample_without_partner() -> None:
    with pytest.raises(ValueError, match="2 samples have no partner, the first is 'b'"):
        paired({"a": True, "b": True}, {"a": True, "c": True})


def test_f1_and_kappa_of_a_table_worked_out_by_hand() -> None:
    # Cohen's usual example: 20 and 15 agree, 5 and 10 differ; agreement 0.7, by chance 0.5, kappa 0.4.
    counts = Confusion(tp=20, fp=5, fn=10, tn=15)
    assert kappa_of(counts).rate == pytest.approx(0.4)
    assert f1_of(counts).rate == pytest.approx(40 / 55)
    for interval in (kappa_of(counts), f1_of(counts)):
        assert interval.low < interval.rate < interval.high


def test_agreement_without_anything_to_agree_on_is_not_a_number() -> None:
    assert isnan(kappa_of(Confusion(0, 0, 0, 30)).rate)
    assert isnan(f1_of(Confusion(0, 0, 0, 30)).rate)
    assert isnan(kappa_of(Confusion(0, 0, 0, 0)).rate)


@given(st.builds(Confusion, *[st.integers(0, 40)] * 4))
def test_kappa_is_one_for_full_agreement_and_its_interval_holds_it(counts: Confusion) -> None:
    interval = kappa_of(counts)
    if isnan(interval.rate):
        return
    assert interval.rate <= 1
    assert (interval.rate == pytest.approx(1)) == (counts.fp == counts.fn == 0)
    assert interval.low - 1e-9 <= interval.high
    assert interval == kappa_of(counts)


def test_dependence_of_small_tables_does_not_rest_on_the_chi_square_distribution() -> None:
    assert dependence([[62, 1], [0, 1]]).p > 0.01
    assert dependence([[500, 100], [500, 300]]).p < 1e-9
    assert dependence([[500, 100], [500, 100]]).chi2 == pytest.approx(0)


def test_clustered_share_of_one_answer_each_is_wilson() -> None:
    assert clustered_share([[1], [0], [0], [1], [0]]) == wilson(2, 5)


def test_clustered_share_counts_answers_that_agree_as_one() -> None:
    # 10 questions, 4 answers each that always agree: deff = 4 * 10 / 9, so n = 40 / 4.44 = 9.
    agreeing = clustered_share([[1.0] * 4] * 5 + [[0.0] * 4] * 5)
    as_nine = wilson_share(0.5, 9)
    assert (agreeing.low, agreeing.high) == pytest.approx((as_nine.low, as_nine.high))
    # Answers that are half and half within each question are spread less than chance; that earns nothing.
    assert clustered_share([[1.0, 1.0, 0.0, 0.0]] * 10) == wilson_share(0.5, 40)


def test_clustered_share_lies_between_independent_and_agreeing_answers() -> None:
    random = np.random.default_rng(0)
    rates = random.beta(2, 2, size=60)
    values = [list((random.random(4) < rate).astype(float)) for rate in rates]
    found = clustered_share(values)
    wide, narrow = wilson_share(found.rate, 60), wilson_share(found.rate, 240)
    assert wide.low < found.low < narrow.low < found.rate < narrow.high < found.high < wide.high


def test_clustered_share_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        rates = random.beta(1, 1.5, size=30)
        values = (random.random((30, 4)) < rates[:, None]).astype(float).tolist()
        found = clustered_share(values)
        hits += found.low <= 0.4 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_clustered_share_without_any_spread_trusts_clusters_only() -> None:
    assert clustered_share([[1.0] * 4] * 30) == wilson_share(1.0, 30)
    assert clustered_share([[0.0, 1.0]]) == wilson_share(0.5, 1)
    nothing = clustered_share([])
    assert isnan(nothing.rate)
    assert (nothing.low, nothing.high) == (0.0, 1.0)


def test_pass_at_k_is_the_chance_that_a_draw_holds_a_pass() -> None:
    outcomes = [True, False, False, True, False]
    for k in range(1, 6):
        draws = list(combinations(outcomes, k))
        assert pass_at_k(5, 2, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert pass_at_k(4, 0, 4) == 0
    with pytest.raises(ValueError, match="pass@5 cannot be had from 4"):
        pass_at_k(4, 1, 5)


def test_detectable_is_the_first_difference_that_the_exact_test_sees() -> None:
    assert detectable(5) is None
    assert detectable(6) == 1.0
    assert detectable(50) == 6 / 50
    for count, seen in ((5, False), (6, True)):
        pairs = {str(number): Pair(number < count, False) for number in range(50)}
        assert (mcnemar_exact(pairs).p < 0.05) is seen
