"""How far a local judge can be trusted beside an LLM judge: limits on its probabilities from rows that both judged.

Below `clean` it decides that a pattern is absent, from `flagged` on that it is there; a row of which any label is in
between goes to the LLM. The limits are the widest at which two shares stay within a bound, each in at least a given
share of runs: of the rows that the LLM flags, those that the local judge would miss a label of; of all rows, those that
it would give a label that the LLM does not. Both counts grow with their limit, and rows are drawn at random, so the
upper limit of a binomial share holds at the limit that is chosen.

Sources: Bates et al., "Distribution-free, risk-controlling prediction sets" (JACM 2021), for a bound that holds with a
stated confidence; Angelopoulos et al., "Conformal risk control" (ICLR 2024), which bounds the mean over runs alone.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]
Truth = NDArray[np.bool_]
# Expected flagged rows in the sample, by how often the local judge may then be wrong: never, once.
_ERRORS = (1, 0)
# The sample is no larger than these shares of the rows: the dearer one only where the cheaper is not to be had.
_SHARES = (0.1, 0.5)
# A sample has, by chance, fewer flagged rows than expected.
_MARGIN = 1.15
# Chance at which rows that keep the bound are taken for ones that break it.
_FALSE_ALARM = 0.05


class Limits(NamedTuple):
    """Probabilities up to `clean` are no label, those from `flagged` on are one; -1 and 2 decide nothing."""

    clean: float
    flagged: float


NOTHING = Limits(-1.0, 2.0)


def most_errors(n: int, bound: float, confidence: float) -> int:
    """How many of n drawn rows may be wrong for the share of all to be within the bound with this confidence; -1 where
    even none are too many.

    >>> [most_errors(n, 0.01, 0.9) for n in (229, 230, 388, 531)]
    [-1, 0, 1, 2]
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    errors = -1
    while errors < n and binom.cdf(errors + 1, n, bound) <= 1 - confidence:
        errors += 1
    return errors


def limits_of(probabilities: Probabilities, truth: Truth, bound: float, confidence: float) -> Limits:
    """The limits that drawn rows allow, both arrays (rows, labels)."""
    lowest, highest = _worst(probabilities, truth)
    lowest = np.sort(lowest[truth.any(axis=1)])
    highest = np.sort(highest)[::-1]
    misses = most_errors(len(lowest), bound, confidence)
    alarms = most_errors(len(highest), bound, confidence)
    if misses < 0 or alarms < 0:
        return NOTHING
    clean = float(np.nextafter(lowest[misses], -1)) if misses < len(lowest) else 0.5
    flagged = float(np.nextafter(highest[alarms], 2)) if alarms < len(highest) else 0.5
    return Limits(min(clean, 0.5), max(flagged, np.nextafter(0.5, 1)))


def _worst(probabilities: Probabilities, truth: Truth) -> tuple[Probabilities, Probabilities]:
    """Of each row the lowest probability of a label that it has, and the highest of one that it has not."""
    return np.where(truth, probabilities, 3.0).min(axis=1), np.where(truth, -3.0, probabilities).max(axis=1)


def decides(probabilities: Probabilities, limits: Limits) -> Truth:
    """Which rows the local judge decides, (rows,)."""
    return np.asarray(((probabilities <= limits.clean) | (probabilities >= limits.flagged)).all(axis=1))


class Errors(NamedTuple):
    """Of the rows that the LLM flags, those with a label that the local judge would miss; of all, those with one that
    it would set in vain."""

    missed: int
    flagged: int
    alarms: int
    rows: int

    @property
    def share(self) -> float:
        """The larger of the two shares that are wrong."""
        return max(self.missed / max(self.flagged, 1), self.alarms / max(self.rows, 1))

    def contradict(self, bound: float, looks: int = 1) -> bool:
        """Whether rows that keep the bound would be so wrong in less than one of twenty looks; `looks` at once."""
        from scipy.stats import binom

        chances = (binom.sf(self.missed - 1, self.flagged, bound), binom.sf(self.alarms - 1, self.rows, bound))
        return bool(min(chances) < _FALSE_ALARM / (2 * looks))


def errors_of(probabilities: Probabilities, truth: Truth, limits: Limits) -> Errors:
    """What the local judge would get wrong of rows at given limits."""
    lowest, highest = _worst(probabilities, truth)
    flagged = truth.any(axis=1)
    return Errors(
        int((lowest[flagged] <= limits.clean).sum()),
        int(flagged.sum()),
        int((highest >= limits.flagged).sum()),
        len(truth),
    )


def sample_size(rows: int, flagged: float, bound: float, confidence: float) -> int:
    """How many rows are drawn for the LLM to find the limits on, by the share that is expected to be flagged; 0 where
    the bound cannot be had by judging less than half of the rows."""
    if not rows or flagged <= 0:
        return 0
    for errors, share in zip(_ERRORS, _SHARES, strict=True):
        needed = int(np.ceil(_MARGIN * _needed(errors, bound, confidence) / flagged))
        if needed <= share * rows:
            return needed
    return 0


@lru_cache
def _needed(errors: int, bound: float, confidence: float) -> int:
    """Flagged rows that it takes to allow so many errors."""
    from scipy.stats import binom

    n = errors + 1
    while binom.cdf(errors, n, bound) > 1 - confidence:
        n += 1
    return n


def audit_size(rows: int) -> int:
    """How many further rows are drawn to check the limits on: two in a hundred, at least a hundred."""
    return min(rows, max(100, int(np.ceil(rows / 50))))
