"""Numbers to trust: intervals for rates, agreement beyond chance, an exact test for two students on the same questions.

Reads and writes nothing. Counts here can be small (20 a group), so nothing rests on a normal approximation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# So many standard deviations either side hold that share of a normal distribution.
_Z = 1.959963984540054
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate with its interval, all three as shares in [0, 1]."""

    rate: float
    low: float
    high: float


_UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


class Confusion(NamedTuple):
    """How a yes-or-no judgement meets its reference: counts of true and false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int


class Pair(NamedTuple):
    """What two students did on one question; None where that is unknown, as of an answer without a verdict."""

    first: bool | None
    second: bool | None


@dataclass(frozen=True, slots=True)
class McNemar:
    """The exact test over complete pairs: their number, the discordant ones either way, and the two-sided p value.

    `left_out` pairs lack an outcome; `p_low` and `p_high` bound the p value over every way of filling those in. All
    three are None in results of versions that counted a missing outcome as a failure.
    """

    pairs: int
    only_first: int
    only_second: int
    p: float
    left_out: int | None = None
    p_low: float | None = None
    p_high: float | None = None


def wilson(successes: int, n: int) -> Interval:
    """The Wilson score interval at 95 % for `successes` of `n`.

    With n = 0 nothing is known: the rate is nan and the interval is [0, 1].

    Raises:
        ValueError: `successes` is not between 0 and `n`.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a rate.")
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    rate = successes / n
    size = 2 * (n + _Z**2)
    middle = (2 * n * rate + _Z**2) / size
    half = _Z / size * sqrt(4 * n * rate * (1 - rate) + _Z**2)
    return Interval(rate, middle - half if successes else 0.0, middle + half if successes < n else 1.0)


class Dependent(NamedTuple):
    """Pearson's chi-square statistic of a table of counts, and its p value."""

    chi2: float
    p: float


def dependence(table: Sequence[Sequence[int]]) -> Dependent:
    """Test whether rows and columns of a table of counts depend on each other.

    Every row and column has a sum above 0. Where an expected count is below 5 the chi-square distribution does not
    hold, and the p value comes from 9,999 seeded random tables with the same sums.
    """
    from scipy.stats import MonteCarloMethod, chi2_contingency  # type: ignore[import-untyped]

    counts = np.asarray(table, float)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    few = bool((expected < 5).any())
    method = MonteCarloMethod(n_resamples=9_999, rng=np.random.default_rng(0)) if few else None
    test = chi2_contingency(counts.astype(int), correction=False, method=method)
    return Dependent(float(test.statistic), float(test.pvalue))


def outcome_of(values: Sequence[float | None], due: int) -> bool | None:
    """Whether most of the answers to a question are hits; None where those without a verdict could decide it.

    Args:
        values: Each answer's value from 0 to 1, None for one without a verdict.
        due: How many answers there were to be; those that never came are without a verdict too.
    """
    known = [value for value in values if value is not None]
    number = max(due, len(values), 1)
    if sum(known) > number / 2:
        return True
    return False if sum(known) + number - len(known) <= number / 2 else None


def paired(first: Mapping[str, bool | None], second: Mapping[str, bool | None]) -> dict[str, Pair]:
    """Join two students' outcomes by sample id.

    Raises:
        ValueError: an id that only one of them has. Leaving it out would compare different sets of questions.
    """
    if alone := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"{len(alone)} samples have no partner, the first is '{alone[0]}'.")
    return {name: Pair(outcome, second[name]) for name, outcome in first.items()}


def mcnemar_exact(pairs: Mapping[str, Pair]) -> McNemar:
    """McNemar's test in its exact form: under no difference, discordant pairs fall either way like a fair coin.

    `pairs` maps a sample id to both outcomes. Without a discordant pair p is 1. A pair of which an outcome is unknown
    is left out: to count it as a failure would find differences between students that are the same. As leaving out is
    right only where what is missing has nothing to do with the outcome, the p values at both ends of what the missing
    outcomes may have been are given with it.

    Sources: McNemar, Psychometrika 12 (1947); the binomial form is the usual one for few discordant pairs. Complete
    cases and their assumption: Little and Rubin, "Statistical Analysis with Missing Data" (3rd ed. 2019), chapter 3.
    Bounds over every filling-in: Manski, "Partial Identification of Probability Distributions" (2003), chapter 1.
    """
    complete = [pair for pair in pairs.values() if None not in pair]
    only_first = sum(pair == (True, False) for pair in complete)
    only_second = sum(pair == (False, True) for pair in complete)
    missing = [pair for pair in pairs.values() if None in pair]
    # How many of these may turn out in favour of each: a pair of two unknowns in favour of either.
    for_first = sum(pair.first is not False and pair.second is not True for pair in missing)
    for_second = sum(pair.second is not False and pair.first is not True for pair in missing)
    one, other = sorted((only_first, only_second))
    most_even = min(one + (for_first if only_first < only_second else for_second), other)
    ends = [(only_first, only_second), (only_first + for_first, only_second), (only_first, only_second + for_second)]
    return McNemar(
        pairs=len(complete),
        only_first=only_first,
        only_second=only_second,
        p=_fair_coin(only_first, only_second),
        left_out=len(missing),
        p_low=min(_fair_coin(*end) for end in ends),
        p_high=max(_fair_coin(most_even, other), _fair_coin(only_first, only_second)),
    )


def _fair_coin(one: int, other: int) -> float:
    """The two-sided p value of heads and tails of a coin under its being fair."""
    from scipy.stats import binomtest

    return float(binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0


def f1_of(counts: Confusion) -> Interval:
    """F1 with a bootstrap interval over the rows; nan where nothing is positive on either side."""
    return _bootstrapped(counts, lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn))


def kappa_of(counts: Confusion) -> Interval:
    """Cohen's kappa with a bootstrap interval over the rows; nan where both sides always say the same one thing.

    Source: Cohen, "A Coefficient of Agreement for Nominal Scales", Educational and Psychological Measurement 20 (1960).
    """
    return _bootstrapped(counts, _kappa)


def _bootstrapped(counts: Confusion, statistic: Callable[..., NDArray[np.float64]]) -> Interval:
    """A statistic of the four counts, with the 95 % percentile interval of resampled rows.

    Resampling rows with replacement is drawing the four counts from a multinomial distribution. The seed is fixed, so
    that the same counts give the same interval; resamples in which the statistic does not exist are left out.
    """
    n = sum(counts)
    if n == 0:
        return _UNKNOWN
    drawn = np.random.default_rng(0).multinomial(n, np.array(counts) / n, size=_RESAMPLES).T.astype(float)
    return _percentiles(np.array(counts, dtype=float), drawn, statistic)


def _percentiles(
    counts: NDArray[np.float64], drawn: NDArray[np.float64], statistic: Callable[..., NDArray[np.float64]]
) -> Interval:
    """A statistic of four counts, with the 95 % interval of `drawn`, 4 x resamples, where it exists."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*counts.reshape(4, 1))[0])
        values = statistic(*drawn)
    values = values[np.isfinite(values)]
    if not np.isfinite(value) or not len(values):
        return _UNKNOWN
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def wilson_share(share: float, n: float) -> Interval:
    """The Wilson interval of a weighted share, at an effective sample size that need not be a whole number.

    With n = 0 nothing is known: the rate is nan and the interval is [0, 1].

    Source: as `wilson`; the effective size is Kish's, "Survey Sampling" (1965).
    """
    if n <= 0:
        return Interval(float("nan"), 0.0, 1.0)
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return Interval(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def clustered_share(values: Sequence[Sequence[float]]) -> Interval:
    """The mean of values in [0, 1] that come in clusters, such as several answers to a question, with its interval.

    With one 0 or 1 a cluster it is `wilson`. Otherwise the Wilson interval at the effective sample size n / deff: the
    design effect deff is the variance of the mean with clusters kept together over that of as many independent zeros
    and ones. Answers that agree within their question count for less; none count for more than they are. Where all
    values are 0 or all are 1 nothing tells how they depend, and a cluster counts as one.

    Args:
        values: A sequence a cluster, none of them empty.

    Sources: Kish, "Survey Sampling" (1965), for the design effect; Korn and Graubard, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data", Survey Methodology 24
    (1998), for an interval at the effective size; Miller, "Adding Error Bars to Evals" (2024, arXiv 2411.00640), for
    clusters of answers to one question.
    """
    return clustered_totals([(sum(row), len(row), 1) for row in values])


def clustered_totals(groups: Sequence[tuple[float, int, int]]) -> Interval:
    """`clustered_share` of clusters that are counted: the sum of a cluster's values, how many, and how many such."""
    clusters = sum(count for _, _, count in groups)
    n = sum(size * count for _, size, count in groups)
    if n == 0:
        return wilson_share(0.0, 0)
    share = sum(total * count for total, _, count in groups) / n
    if n == clusters and all(total in (0, 1) for total, _, _ in groups):
        return wilson(round(share * n), n)
    if n == clusters or share in (0.0, 1.0) or clusters == 1:
        return wilson_share(share, clusters)
    spread = sum(count * (total - size * share) ** 2 for total, size, count in groups) * clusters / (clusters - 1)
    deff = (spread / n**2) / (share * (1 - share) / n)
    return wilson_share(share, n / max(deff, 1.0))


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The chance that one of `k` samples passes, estimated without bias from `n` samples of which `passed` did.

    Raises:
        ValueError: k is not between 1 and n.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2021, arXiv 2107.03374), equation 1.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be had from {n} samples.")
    return 1 - comb(n - passed, k) / comb(n, k)


def detectable(pairs: int) -> float | None:
    """The smallest difference in rates that `mcnemar_exact` can find significant (p < 0.05) with so many pairs.

    It takes the best case: every discordant pair falls the same way. None where not even that is enough.
    """
    for discordant in range(1, pairs + 1):
        if _fair_coin(discordant, 0) < 1 - CONFIDENCE:
            return discordant / pairs
    return None


def weighted_scores(judged: Sequence[bool], right: Sequence[bool], weights: NDArray[np.float64]) -> dict[str, Interval]:
    """Precision, recall, F1 and Cohen's kappa of weighted rows, each with a bootstrap interval over the rows.

    Args:
        judged: What was judged, a row each.
        right: The reference.
        weights: How many rows each one stands for.
    """
    cells = np.zeros((len(judged), 4))
    for row, (one, other) in enumerate(zip(judged, right, strict=True)):
        cells[row, (0 if other else 1) if one else (2 if other else 3)] = weights[row]
    if not len(cells):
        return dict.fromkeys(_WEIGHTED, _UNKNOWN)
    rng = np.random.default_rng(0)
    drawn = np.stack([cells[rng.integers(0, len(cells), len(cells))].sum(axis=0) for _ in range(_RESAMPLES)]).T
    return {name: _percentiles(cells.sum(axis=0), drawn, statistic) for name, statistic in _WEIGHTED.items()}


def _kappa(
    tp: NDArray[np.float64], fp: NDArray[np.float64], fn: NDArray[np.float64], tn: NDArray[np.float64]
) -> NDArray[np.float64]:
    n = tp + fp + fn + tn
    chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
    return ((tp + tn) / n - chance) / (1 - chance)


_WEIGHTED: dict[str, Callable[..., NDArray[np.float64]]] = {
    "precision": lambda tp, fp, fn, tn: tp / (tp + fp),
    "recall": lambda tp, fp, fn, tn: tp / (tp + fn),
    "f1": lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn),
    "kappa": _kappa,
}
