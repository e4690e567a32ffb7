"""Whether a share of unsafe rows is below a bound, or above it, by evidence that holds whenever it is looked at.

Reads and writes nothing. `Wealth` takes one vote after the other, in the order of the draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Each decision is wrong with at most this probability, however often somebody looks.
RISK = 0.05
# Shares of the largest bet that cannot lose everything before the vote is known, all held at once.
_BELOW = np.array([0.1, 0.25, 0.45, 0.65, 0.8, 0.9, 0.97, 1.0])
_ABOVE = np.array([0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5])


class Vote(NamedTuple):
    """What a vote on the next row of the draw can pay, as the draw was before it.

    `pays` is the share of all rows that an unsafe vote stands for: rows left in the stratum, over all rows and over
    the chance that the stratum was next; `most` is the largest of these over strata; `fair` is whether every stratum
    that has rows left could have been next; `unsafe` is the vote.
    """

    pays: ArrayLike
    most: ArrayLike
    fair: ArrayLike
    unsafe: ArrayLike


class Wealth:
    """Bets against each of many bounds from both sides; a wealth of 1 / RISK refutes one.

    Whoever bets on the share being below a bound cannot expect to win if it is not, whatever was seen before: wealth
    above 1 / RISK at any time has a probability of at most RISK (Ville's inequality). Each bet is an average over
    eight constant shares of the largest possible one, so none needs to be chosen in sight of votes.

    Args:
        bounds: The shares that are bet against, each for itself.
        rows: How many rows there are in all.

    Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024);
    Shekhar, Xu, Lipton, Liang and Ramdas, "Risk-limiting financial audits via weighted sampling without replacement",
    UAI 2023, for rows drawn with unlike probabilities and not put back.

    >>> wealth = Wealth([0.03], 1_000_000)
    >>> for _ in range(130):
    ...     wealth.take(Vote(1.0, 1.0, True, False))
    >>> bool(wealth.below[0]), bool(wealth.above[0])  # 130 safe ones: below 3 %
    (True, False)
    """

    def __init__(self, bounds: ArrayLike, rows: int) -> None:
        self.bounds = np.asarray(bounds, np.float64)
        self.rows = rows
        shape = (len(_BELOW), *self.bounds.shape)
        self.logs_below: NDArray[np.float64] = np.zeros(shape)
        self.logs_above: NDArray[np.float64] = np.zeros(shape)
        self.found = np.zeros(self.bounds.shape)
        self.below = np.zeros(self.bounds.shape, bool)
        self.above = np.zeros(self.bounds.shape, bool)

    def take(self, vote: Vote) -> None:
        """Settle the bets on one vote; `below` and `above` stay true once they are."""
        below, above = self.changes(vote.pays, vote.most, vote.unsafe)
        fair = np.asarray(vote.fair)
        self.logs_below += np.where(fair, below, 0.0)
        self.logs_above += np.where(fair, above, 0.0)
        self.found = self.found + np.asarray(vote.unsafe) / self.rows
        self.below |= _mean(self.logs_below) >= -np.log(RISK)
        self.above |= (_mean(self.logs_above) >= -np.log(RISK)) | (self.found > self.bounds + 1e-12)

    def changes(self, pays: ArrayLike, most: ArrayLike, unsafe: ArrayLike) -> tuple[NDArray[np.float64], ...]:
        """By how much a vote changes the logarithm of each bet below and above."""
        due = np.maximum(self.bounds - self.found, 0.0)  # what one vote pays on average, were the bound the share
        paid = np.asarray(pays) * np.asarray(unsafe)
        room = np.maximum(np.asarray(most) - due, 1e-12)
        fraction = _BELOW.reshape(-1, *(1,) * self.bounds.ndim)
        with np.errstate(divide="ignore"):
            below = np.log(np.maximum(1 + fraction / room * (due - paid), 0.0))
        above = np.log1p(_ABOVE.reshape(fraction.shape) * (paid / np.maximum(due, 1e-12) - 1))
        return below, above


def more_votes(wealth: Wealth, pays: Sequence[float], chances: Sequence[float], rates: Sequence[float]) -> int | None:
    """How many more votes the first bound likely needs to be decided, at the rates seen so far; None where more than
    there are rows.

    Args:
        wealth: After the votes so far; it has one bound.
        pays: What an unsafe vote in each stratum pays (`Vote.pays`).
        chances: With what chance each stratum is next.
        rates: The share of unsafe votes to expect in each.
    """
    mean = np.zeros((2, len(_BELOW), 1))
    for value, chance, rate in zip(pays, chances, rates, strict=True):
        for unsafe, weight in ((False, 1 - rate), (True, rate)):
            change = np.stack(wealth.changes(value, max(pays), unsafe))
            # A bet that one unsafe vote loses is not one to count on.
            mean += chance * weight * np.maximum(change, -50.0)
    steps = np.arange(1, wealth.rows + 1)
    grown = np.stack([wealth.logs_below, wealth.logs_above])[..., 0, None] + mean[..., 0, None] * steps
    enough = (_mean(grown[0]) >= -np.log(RISK)) | (_mean(grown[1]) >= -np.log(RISK))
    return int(steps[enough.argmax()]) if enough.any() else None


def _mean(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the average over bets."""
    top = logs.max(0)
    found: NDArray[np.float64] = top + np.log(np.exp(logs - top).mean(0))
    return found
