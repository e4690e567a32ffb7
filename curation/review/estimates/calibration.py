"""How far a confidence can be taken for the chance of being right.

Reads and writes nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BINS = 10
_RESAMPLES = 1000
_SEED = 0


class Bin(NamedTuple):
    """Rows of about the same confidence: how many, their mean confidence, the share on which the judges are right."""

    rows: int
    confidence: float
    right: float


class Calibration(NamedTuple):
    """The expected calibration error with its 95 % interval, and the bins that it is the mean gap of."""

    error: float
    low: float
    high: float
    bins: list[Bin]


def calibration(confidence: ArrayLike, right: ArrayLike, weights: ArrayLike) -> Calibration:
    """The expected calibration error over bins of as many rows each, ten or fewer, none of below ten rows.

    The interval is a percentile one over resampled rows (the bins stay); with few rows the error itself is seen a
    little too large, since chance alone opens gaps.

    Args:
        confidence: Of each row with votes, 0 to 1.
        right: Whether the judges say what people say.
        weights: How many rows each stands for.

    Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017; bins of equal size
    as Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing models",
    EMNLP 2015.

    >>> sure = [0.6] * 50 + [0.9] * 50
    >>> found = calibration(sure, [True] * 30 + [False] * 20 + [True] * 40 + [False] * 10, [1] * 100)
    >>> round(found.error, 3), [(one.rows, round(one.right, 2)) for one in found.bins]
    (0.05, [(50, 0.6), (50, 0.8)])
    """
    sure, hit, weight = (np.asarray(one, np.float64) for one in (confidence, right, weights))
    edges = np.unique(np.quantile(sure, np.linspace(0, 1, max(min(_BINS, len(sure) // 10), 1) + 1)[1:-1]))
    # Rows of one confidence stay together, so that a few distinct values are as many bins.
    of = np.unique(np.searchsorted(edges, sure, side="left"), return_inverse=True)[1]
    rng = np.random.default_rng(_SEED)
    drawn = [
        _error(sure[at], hit[at], weight[at], of[at]) for at in rng.integers(0, len(sure), (_RESAMPLES, len(sure)))
    ]
    bins = [
        Bin(
            int((of == one).sum()),
            *(float(np.average(value[of == one], weights=weight[of == one])) for value in (sure, hit)),
        )
        for one in range(of.max() + 1)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Calibration(_error(sure, hit, weight, of), float(low), float(high), bins)


def _error(
    sure: NDArray[np.float64], hit: NDArray[np.float64], weight: NDArray[np.float64], of: NDArray[np.int64]
) -> float:
    gaps = np.bincount(of, weight * (sure - hit))
    return float(np.abs(gaps).sum() / weight.sum())
