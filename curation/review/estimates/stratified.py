"""The share of unsafe rows from votes in strata: exact for one stratum, and near exact where counts are small.

Reads and writes nothing. All arguments broadcast, strata last, so that thousands of simulated reviews are one call.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.statistics import CONFIDENCE

Floats = NDArray[np.float64]


class Shares(NamedTuple):
    """A share with the ends of its interval, as many of each as there are reviews."""

    rate: Floats
    low: Floats
    high: Floats


def stratified_share(sizes: ArrayLike, asked: ArrayLike, unsafe: ArrayLike, level: float = CONFIDENCE) -> Shares:
    """The share of all rows that people call unsafe, with its interval for these very rows (not for more like them).

    With one stratum and few of its rows asked, it is Clopper and Pearson's exact interval. With several, the upper end
    adds one unsafe row to the stratum in which a row weighs most, which keeps the interval's promise where that
    stratum has shown none; a normal approximation, or an effective size, promises too much there. Rows that people
    have seen are known: only the others are uncertain. A stratum of which nobody has seen a row may be all safe or all
    unsafe; the rate leaves it out.

    Args:
        sizes: Rows in each stratum.
        asked: Rows with votes in it.
        unsafe: Of these, the unsafe ones.
        level: Confidence; both tails have half of the rest.

    Sources: Clopper and Pearson, Biometrika 26 (1934); Fay and Feuer, "Confidence intervals for directly standardized
    rates", Statistics in Medicine 16 (1997), for the added event and the matching of two moments, here of a beta
    distribution; Cochran, "Sampling Techniques" (3rd ed. 1977), chapter 5, for the variance in a finite population.

    >>> none = stratified_share([1_000_000], [100], [0])
    >>> float(none.low), round(float(none.high), 4)  # Clopper-Pearson: 1 - 0.025 ** (1 / 100)
    (0.0, 0.0362)
    >>> [round(float(one), 3) for one in stratified_share([100, 300, 1600], [40, 60, 200], [6, 2, 1])]
    [0.017, 0.008, 0.035]
    """
    given = (np.asarray(one, np.float64) for one in (sizes, asked, unsafe))
    sizes, asked, unsafe = np.broadcast_arrays(*given)
    weights = sizes / np.maximum(sizes.sum(-1, keepdims=True), 1e-12)
    shares = np.divide(unsafe, asked, out=np.zeros(asked.shape), where=asked > 0)
    seen = np.where(asked > 0, weights, 0.0).sum(-1)
    rate = np.divide((weights * shares).sum(-1), seen, out=np.full(np.shape(seen), np.nan), where=seen > 0)
    tail = (1 - level) / 2
    low = 1 - _upper(weights, sizes, asked, asked - unsafe, tail)
    high = _upper(weights, sizes, asked, unsafe, tail)
    # Unsafe rows are whole rows; rounding down loosens the lower end, and costs the upper one nothing.
    rows = np.maximum(sizes.sum(-1), 1e-12)
    return Shares(rate, np.floor(rows * low + 1e-6) / rows, np.floor(rows * high + 1e-6) / rows)


def _upper(weights: Floats, sizes: Floats, asked: Floats, unsafe: Floats, tail: float) -> Floats:
    from scipy.stats import beta  # type: ignore[import-untyped]

    some = np.maximum(asked, 1)
    share = unsafe / some
    rows = np.maximum(sizes, 1e-12)  # a stratum may be empty
    unknown = weights * (1 - asked / rows)  # what the rows that nobody has seen weigh
    known = (weights * unsafe / rows).sum(-1)
    seen = asked > 0
    mean = np.where(seen, share, 0.0)
    # The variance of a stratum's unseen rows around it: of what was measured, and of their own being few.
    spread = np.where(asked > 1, share * (1 - share) / np.maximum(asked - 1, 1), share)
    more, own = (unsafe + 1) / (asked + 1), np.where(seen, unknown / (asked + 1), -1.0)
    added = np.arange(sizes.shape[-1]) == own.argmax(-1)[..., None]
    mean = np.where(added, more, mean)
    spread = np.where(added, more * (1 - more) / (asked + 2) * (1 + 1 / rows), spread)
    unseen = np.where(seen, 0.0, weights).sum(-1)
    open_weight = np.where(seen, unknown, 0.0).sum(-1)
    scale = np.maximum(open_weight, 1e-12)
    centre = np.where(seen, unknown * mean, 0.0).sum(-1) / scale
    variance = np.where(seen, weights * unknown * spread, 0.0).sum(-1) / scale**2
    size = np.maximum(centre * (1 - centre) / np.maximum(variance, 1e-15) - 1, 1e-6)
    with np.errstate(invalid="ignore"):
        part = beta.ppf(1 - tail, np.maximum(centre * size, 1e-9), np.maximum((1 - centre) * size, 1e-9))
    part = np.where(centre >= 1 - 1e-12, 1.0, part)
    found: Floats = np.minimum(known + open_weight * part + unseen, 1.0)
    return found
