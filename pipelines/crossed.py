"""Rates of a model that was trained from several seeds, each asked the same questions: intervals over both.

Reads and writes nothing. Seeds and questions are crossed random effects, as readers and words are in Clark's "fixed-
effect fallacy": what holds of these few trainings or these questions alone need not hold of others.

The variance of the mean is (MS_seeds + MS_questions - MS_rest) / cells, from the mean squares of the two-way table,
with Satterthwaite's degrees of freedom: with two or three seeds that differ much it is the seeds that decide. Neither
bootstrap would do here: resampling three seeds gives two thirds of their variance.

Sources: Clark, "The Language-as-Fixed-Effect Fallacy", Journal of Verbal Learning and Verbal Behavior 12 (1973);
Satterthwaite, "An Approximate Distribution of Estimates of Variance Components", Biometrics Bulletin 2 (1946);
McCullagh, "Resampling and Exchangeable Arrays", Bernoulli 6 (2000), for the bootstrap; Korn and Graubard (1998, as
`pipelines.statistics.clustered_share`) for a share's interval at few degrees of freedom.
"""

from math import inf, nan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.statistics import CONFIDENCE, Interval, clustered_share, wilson, wilson_share

Table = NDArray[np.float64]
# Of ten differences as large as `needed` says, eight are found.
_POWER_Z = 0.8416212335729143


class Parts(NamedTuple):
    """What makes the mean of a table of seeds by questions uncertain.

    Attributes:
        mean: The mean of all cells.
        questions, seeds: Variance of the mean by either, each with what is left over.
        rest: By what is left over alone; it is in both of those, and counts once.
    """

    mean: float
    questions: float
    seeds: float
    rest: float


def parts_of(table: Table) -> Parts:
    """The parts of a table's variance; `table` is seeds by questions, each a mean over answers, two or more of both."""
    rows, columns = table.shape
    mean = float(table.mean())
    by_seed, by_question = table.mean(axis=1), table.mean(axis=0)
    left = table - by_seed[:, None] - by_question[None, :] + mean
    rest = float((left**2).sum()) / ((rows - 1) * (columns - 1)) / table.size
    return Parts(mean, float(by_question.var(ddof=1)) / columns, float(by_seed.var(ddof=1)) / rows, rest)


def spread_of(table: Table) -> float:
    """The standard deviation of trainings' true rates, as far as these show it: 0 where chance alone explains them."""
    found = parts_of(table)
    return sqrt(max(0.0, found.seeds - found.rest) * len(table))


def crossed_share(table: Table) -> Interval:
    """The mean of a table of seeds by questions, all in [0, 1], with its 95 % interval over both.

    Wilson's interval at the effective sample size. With one seed, or where all cells are alike and nothing tells how
    they depend, it is over questions alone.
    """
    rows, columns = table.shape
    share = float(table.mean()) if table.size else nan
    if rows < 2 or columns < 2 or share in (0.0, 1.0):
        return clustered_share(table.T.tolist())
    variance, df = _variance(parts_of(table), rows, columns)
    # None counts for more than independent answers would.
    variance = max(variance, share * (1 - share) / table.size)
    return wilson_share(share, share * (1 - share) / variance * (_t(columns - 1) / _t(df)) ** 2)


class Difference(NamedTuple):
    """A difference of two rates with its 95 % interval, and the two-sided p value of there being none."""

    interval: Interval
    p: float


def crossed_difference(first: Table, second: Table) -> Difference:
    """How two tables of seeds by the same questions differ: paired by question, seeds of each their own.

    A table of one seed is a model as it is: nobody trained it, and it has no seeds to vary over.
    """
    from scipy.stats import t  # type: ignore[import-untyped]

    columns = first.shape[1]
    paired = first.mean(axis=0) - second.mean(axis=0)
    mean = float(paired.mean())
    if columns < 2:
        return Difference(Interval(mean, -1.0, 1.0), 1.0)
    terms = [(float(paired.var(ddof=1)) / columns, columns - 1)]
    for table in (one for one in (first, second) if len(one) > 1):
        found, rows = parts_of(table), len(table)
        if found.seeds > found.rest:
            terms += [(found.seeds, rows - 1), (-found.rest, (rows - 1) * (columns - 1))]
    variance, df = _satterthwaite(terms)
    if variance > 0:
        half, p = _t(df) * sqrt(variance), float(2 * t.sf(abs(mean) / sqrt(variance), df))
    else:  # All questions alike: as many heads of a coin, and Wilson's interval of them.
        half, p = 1 - wilson(columns, columns).low, 2.0 ** (1 - columns) if mean else 1.0
    return Difference(Interval(mean, max(-1.0, mean - half), min(1.0, mean + half)), p)


def needed(seeds: int, questions: int, rate: float, spread: float) -> float:
    """The difference of two methods, of two seeds or more each, that so many questions show eight times of ten.

    Args:
        rate: About what both have.
        spread: The standard deviation of one method's trainings.

    Assumes that half of an answer's variance is its question's, and that methods share half of that.

    Source: Miller, "Adding Error Bars to Evals" (2024, arXiv 2411.00640), section 5, with a part for seeds.
    """
    answer = rate * (1 - rate)
    own = answer / questions + 2 * spread**2
    variance, df = _satterthwaite([(answer / 2 / questions, questions - 1), (own / seeds, 2 * (seeds - 1))])
    return (_t(df) + _POWER_Z) * sqrt(variance)


def _variance(found: Parts, rows: int, columns: int) -> tuple[float, float]:
    if found.seeds <= found.rest:
        return found.questions, columns - 1
    if found.questions <= found.rest:
        return found.seeds, rows - 1
    both = [(found.questions, columns - 1), (found.seeds, rows - 1), (-found.rest, (rows - 1) * (columns - 1))]
    return _satterthwaite(both)


def _satterthwaite(terms: list[tuple[float, int]]) -> tuple[float, float]:
    """A sum of mean squares, each with its degrees of freedom, and the sum's own."""
    variance = sum(value for value, _ in terms)
    below = sum(value**2 / df for value, df in terms if df)
    return variance, variance**2 / below if below else inf


def _t(df: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, df))
