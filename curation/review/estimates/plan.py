"""How a budget of votes is spread over strata, decided before anybody looks at the votes that it buys.

Reads and writes nothing. Strata come last, so that thousands of simulated reviews are planned in one call.
"""

import numpy as np
from numpy.typing import ArrayLike

from curation.review.estimates.stratified import Floats, stratified_share

# What is expected of a stratum before a vote, by its risk, and how many votes that guess is worth.
EXPECTED = {"low": 0.005, "middle": 0.03, "high": 0.1}
_GUESS = 10
# 0 spreads votes in proportion to rows, 1 would be Neyman's allocation, which trusts a pilot of few votes too far.
_POWERS = (0.0, 0.5)
# No stratum gets less than this of its share in proportion: no row stands for more than a quarter more than others.
_FLOOR = 0.8
# Strata have to pay for themselves by this much.
_GAIN = 0.98


def expected(guess: ArrayLike, asked: ArrayLike, unsafe: ArrayLike) -> Floats:
    """The share of unsafe rows to plan with in each stratum: the pilot's, drawn towards the guess."""
    found: Floats = (np.asarray(unsafe) + _GUESS * np.asarray(guess)) / (np.asarray(asked) + _GUESS)
    return found


def allocation(sizes: ArrayLike, rates: ArrayLike, budget: int) -> Floats:
    """Votes for each stratum out of a budget: of several spreads the one whose interval is expected to be narrowest.

    Args:
        sizes: Rows of each stratum.
        rates: The share of unsafe rows to expect in it.
        budget: Votes in all, those already given among them.

    What a stratum showed decides how many more votes it gets, so its share is seen a little too low on average: by a
    sixth of its standard error at most in `python -m benchmarks.calibration`, which is what a plan that learns costs.

    Sources: Neyman, "On the Two Different Aspects of the Representative Method", JRSS 97 (1934), tempered as Bankier,
    "Power Allocations", The American Statistician 42 (1988); Nie, Tian, Taylor and Zou, "Why adaptively collected data
    have negative bias", AISTATS 2018.

    >>> allocation([100, 300, 1600], [0.15, 0.03, 0.005], 400).round()
    array([ 39.,  81., 279.])
    """
    sizes, rates = np.broadcast_arrays(np.asarray(sizes, np.float64), np.asarray(rates, np.float64))
    spreads = np.stack([_spread(sizes, rates, budget, power) for power in _POWERS])
    widths = _width(sizes, spreads, rates)
    best = widths.argmin(0)
    found: Floats = np.take_along_axis(spreads, best[None, ..., None], 0)[0]
    return found


def pays_to_stratify(sizes: ArrayLike, rates: ArrayLike, budget: int) -> bool:
    """Whether strata are expected to give a narrower interval than a plain random sample of as many rows.

    >>> pays_to_stratify([100, 300, 1600], [0.1, 0.03, 0.005], 400)
    True
    >>> pays_to_stratify([1990, 10], [0.005, 0.1], 40)
    False
    """
    sizes, rates = np.asarray(sizes, np.float64), np.asarray(rates, np.float64)
    total = sizes.sum(keepdims=True)
    pooled = (sizes * rates).sum(keepdims=True) / total
    random = _width(total, np.minimum([float(budget)], total), pooled)
    return bool(_width(sizes, allocation(sizes, rates, budget), rates) < _GAIN * random)


def cards(left: ArrayLike, targets: ArrayLike, asked: ArrayLike, votes: int) -> Floats:
    """The deck that a round is dealt from: twice as many cards as votes, each naming a stratum that is to be next.

    A stratum has no more cards than rows left, and one card at least while it has a row. Dealing from a known deck
    keeps the chance of each stratum known before each vote, and its number of votes near its target.

    Args:
        left: Rows that nobody was asked about yet.
        targets: Votes that each stratum is to have in the end (`allocation`).
        asked: Votes that it has.
        votes: Of this round.
    """
    left, targets = np.asarray(left, np.float64), np.asarray(targets, np.float64)
    share = left / np.maximum(left.sum(-1, keepdims=True), 1)
    wanted = np.maximum(targets - np.asarray(asked), 0.0)
    wanted = wanted / np.maximum(wanted.sum(-1, keepdims=True), 1e-9)
    mixed = np.maximum(wanted, _FLOOR * share)
    mixed = mixed / np.maximum(mixed.sum(-1, keepdims=True), 1e-9)
    found: Floats = np.minimum(np.maximum(np.ceil(2 * votes * mixed - 1e-9), 1), left)
    # Where nearly full strata leave too few cards, what is left is dealt at random.
    dealt: Floats = np.where(found.sum(-1, keepdims=True) < votes, left, found)
    return dealt


def _spread(sizes: Floats, rates: Floats, budget: int, power: float) -> Floats:
    """Votes in proportion to rows times (standard deviation)^power, none below its floor, none above its rows."""
    aim = sizes * (rates * (1 - rates)) ** (power / 2)
    share = sizes / sizes.sum(-1, keepdims=True)
    own = np.maximum(aim / aim.sum(-1, keepdims=True), _FLOOR * share)
    for _ in range(4):  # what a full stratum cannot take goes to the others
        own = np.minimum(budget * own / own.sum(-1, keepdims=True), sizes) / budget
    found: Floats = np.minimum(np.maximum(budget * own, 2), sizes)
    return found


def _width(sizes: Floats, asked: Floats, rates: Floats) -> Floats:
    found = stratified_share(sizes, asked, asked * rates)
    return found.high - found.low
