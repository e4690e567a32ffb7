"""Each person's own error, from votes of several people on the same rows.

Reads and writes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# With two people nobody can tell who of them errs.
FEWEST_PEOPLE = 3
FEWEST_ROWS = 20
# Two right votes and a wrong one of each kind, before any vote: keeps a person of few votes off 0 and 1.
_RIGHT, _WRONG = 2.0, 1.0
_STEPS = 200


class Coins(NamedTuple):
    """The share of rows that are unsafe, and each person's two coins: how often an unsafe row is called so
    (`sensitivity`), and how often a safe one (`specificity`); `unsafe` has the chance of each row."""

    share: float
    sensitivity: dict[str, float]
    specificity: dict[str, float]
    unsafe: list[float]


def two_coins(votes: Sequence[Mapping[str, bool]]) -> Coins | None:
    """The two-coin model by expectation and maximisation, begun from the majority; None for fewer than three people or
    twenty rows that several saw.

    Args:
        votes: For each row each person's vote, True for unsafe; a person who is unsure has none.

    Sources: Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied
    Statistics 28 (1979); the prior as Raykar et al., "Learning From Crowds", JMLR 11 (2010).

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random(400) < 0.3
    >>> votes = [{n: bool(t ^ (rng.random() < e)) for n, e in (("a", 0.02), ("b", 0.05), ("c", 0.3))} for t in truth]
    >>> found = two_coins(votes)
    >>> [round(found.specificity[name], 1) for name in "abc"], round(found.share, 1)
    ([1.0, 1.0, 0.7], 0.3)
    """
    shared = sum(len(by) > 1 for by in votes)
    names = sorted({name for by in votes for name in by})
    if len(names) < FEWEST_PEOPLE or shared < FEWEST_ROWS:
        return None
    calls = np.array([[by.get(name, False) for name in names] for by in votes], float)
    seen = np.array([[name in by for name in names] for by in votes], float)
    unsafe = calls.sum(1) / np.maximum(seen.sum(1), 1)
    for _ in range(_STEPS):
        share = float(np.clip(unsafe.mean(), 1e-6, 1 - 1e-6))
        coins = []
        for is_so, agrees in ((unsafe, calls), (1 - unsafe, seen - calls)):
            right = (is_so[:, None] * agrees).sum(0) + _RIGHT
            coins.append(right / ((is_so[:, None] * seen).sum(0) + _RIGHT + _WRONG))
        sensitivity, specificity = coins
        logs = np.log(share / (1 - share)) + (
            calls * np.log(sensitivity / (1 - specificity)) + (seen - calls) * np.log((1 - sensitivity) / specificity)
        ).sum(1)
        before, unsafe = unsafe, 1 / (1 + np.exp(-np.clip(logs, -500, 500)))
        if np.abs(unsafe - before).max() < 1e-8:
            break
    by_name = [dict(zip(names, map(float, coin), strict=True)) for coin in (sensitivity, specificity)]
    return Coins(float(unsafe.mean()), by_name[0], by_name[1], [float(one) for one in unsafe])
