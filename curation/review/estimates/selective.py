"""Which rows judges may decide alone, so that they err on at most a given share of these.

Reads and writes nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation.review.estimates.sequence import RISK

# The first part of the votes proposes where to begin; the others, which it has not seen, check the bound.
_PROPOSING = 1 / 4
_COVERAGES = np.arange(0.05, 1.001, 0.05)


class Selective(NamedTuple):
    """Rows of at least a confidence are the judges' to decide; None where the bound cannot be shown.

    `checked` held-out votes lie there, of which `wrong` contradict the judges; `upper` bounds the share of errors, at
    95 %. `needed` is how many held-out votes would be enough if none were wrong.
    """

    threshold: float | None
    checked: int
    wrong: int
    upper: float | None
    needed: int


def decide_alone(everything: ArrayLike, confidence: ArrayLike, wrong: ArrayLike, max_error: float) -> Selective:
    """The lowest threshold of confidence above which judges err on at most `max_error` of the rows, at 95 % confidence.

    A chain of thresholds is tested from one that the first votes propose, each by an exact binomial test on the others,
    towards more rows, as long as each is passed: so the whole chain errs with at most 5 %, however long it is. With
    rows that are drawn and not put back a binomial test is on the safe side.

    Args:
        everything: The confidence of every row with a verdict.
        confidence: Of the rows with votes, in random order; all rows had the same chance to be among them.
        wrong: Whether people contradict the judges there.
        max_error: The share of errors that is allowed, above 0.

    Sources: Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test: Calibrating predictive algorithms to achieve
    risk control", Annals of Applied Statistics 19 (2025): fixed sequence testing, begun where a split of the data
    proposes; Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017; Clopper and
    Pearson, Biometrika 26 (1934).

    >>> rng = np.random.default_rng(0)
    >>> sure = rng.random(900)
    >>> found = decide_alone(rng.random(5000), sure, rng.random(900) < 0.3 * (sure < 0.5), 0.02)
    >>> found.threshold is not None and 0.45 < found.threshold < 0.6, found.needed
    (True, 149)
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    sure, errs = np.asarray(confidence, np.float64), np.asarray(wrong, bool)
    half = int(len(sure) * _PROPOSING)
    needed = int(np.ceil(np.log(RISK) / np.log1p(-max_error))) if max_error < 1 else 1
    thresholds = _thresholds(everything)
    counts = _counts(thresholds, sure[half:], errs[half:])
    enough = counts[0] >= needed
    if not enough.any():
        return Selective(None, 0, 0, None, needed)
    first = _counts(thresholds, sure[:half], errs[:half])
    likely = (first[1] + 0.5) / (first[0] + 1) * counts[0]
    chances = np.where(enough, binom.cdf(np.floor(likely), counts[0], max_error), np.inf)
    begin = int(chances.argmin())
    passed = binom.cdf(counts[1], counts[0], max_error) <= RISK
    if not passed[begin]:
        return Selective(
            None, int(counts[0][begin]), int(counts[1][begin]), _bound(counts[0][begin], counts[1][begin]), needed
        )
    failed = np.flatnonzero(~passed[begin:])
    end = begin + int(failed[0]) - 1 if failed.size else len(thresholds) - 1
    n, k = int(counts[0][end]), int(counts[1][end])
    return Selective(float(thresholds[end]), n, k, _bound(n, k), needed)


def _thresholds(everything: ArrayLike) -> NDArray[np.float64]:
    """From the fewest rows to all of them."""
    found: NDArray[np.float64] = np.unique(np.quantile(np.asarray(everything, np.float64), 1 - _COVERAGES))[::-1]
    return found


def _counts(
    thresholds: NDArray[np.float64], sure: NDArray[np.float64], errs: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    above = sure[None, :] >= thresholds[:, None]
    return above.sum(1), (above & errs[None, :]).sum(1)


def _bound(n: int, wrong: int) -> float:
    from scipy.stats import beta

    return 1.0 if wrong >= n else float(beta.ppf(1 - RISK, wrong + 1, n - wrong))
