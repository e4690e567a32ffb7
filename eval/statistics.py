"""Numbers to trust: intervals for rates, and an exact test for two students on the same questions.

Reads and writes nothing. Counts here are small (20 a group), so nothing rests on a normal approximation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import binomtest  # type: ignore[import-untyped]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate with its interval, all three as shares in [0, 1]."""

    rate: float
    low: float
    high: float


class Pair(NamedTuple):
    """What two students did on one question."""

    first: bool
    second: bool


@dataclass(frozen=True, slots=True)
class McNemar:
    """The exact test: pairs in all, the discordant ones either way, and the two-sided p value."""

    pairs: int
    only_first: int
    only_second: int
    p: float


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
    interval = binomtest(successes, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high))


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> dict[str, Pair]:
    """Join two students' outcomes by sample id.

    Raises:
        ValueError: an id that only one of them has. Leaving it out would compare different sets of questions.
    """
    if alone := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"{len(alone)} samples have no partner, the first is '{alone[0]}'.")
    return {name: Pair(outcome, second[name]) for name, outcome in first.items()}


def mcnemar_exact(pairs: Mapping[str, Pair]) -> McNemar:
    """McNemar's test in its exact form: under no difference, discordant pairs fall either way like a fair coin.

    `pairs` maps a sample id to both outcomes. Without a discordant pair p is 1.

    Source: McNemar, Psychometrika 12 (1947); the binomial form is the usual one for few discordant pairs.
    """
    only_first = sum(pair.first and not pair.second for pair in pairs.values())
    only_second = sum(pair.second and not pair.first for pair in pairs.values())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(len(pairs), only_first, only_second, p)
