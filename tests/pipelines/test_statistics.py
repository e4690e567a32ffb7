"""Intervals and the paired test against values worked out by hand or from first principles."""

from math import comb, isnan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.statistics import Confusion, Pair, dependence, f1_of, kappa_of, mcnemar_exact, paired, wilson


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
