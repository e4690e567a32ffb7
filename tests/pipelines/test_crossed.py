"""Intervals over seeds and questions: they cover as often as they say, where intervals over questions do not."""

import numpy as np
import pytest

from pipelines.crossed import Table, crossed_difference, crossed_share, needed, spread_of
from pipelines.statistics import clustered_share, wilson


def answers(random: np.random.Generator, shape: tuple[int, int], spread: float, ease: Table) -> Table:
    """Zeros and ones of some trainings, whose true rates differ, on questions, which differ too."""
    able = spread * random.standard_normal(shape[0])[:, None]
    return (random.random(shape) < 1 / (1 + np.exp(1.4 - able - ease))).astype(float)


def test_intervals_cover_seeds_and_questions_and_those_over_questions_alone_do_not() -> None:
    random = np.random.default_rng(3)
    ease = 1.5 * random.standard_normal(400_000)
    truth = answers(random, (1, len(ease)), 0.0, ease + 0.6 * random.standard_normal(len(ease))).mean()
    covered, alone, false = [], [], []
    for _ in range(400):
        ease = 1.5 * random.standard_normal(50)
        first, second = (answers(random, (3, 50), 0.6, ease) for _ in range(2))
        found, over_questions = crossed_share(first), clustered_share(first.T.tolist())
        covered.append(found.low <= truth <= found.high)
        alone.append(over_questions.low <= truth <= over_questions.high)
        false.append(crossed_difference(first, second).p < 0.05)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(alone) < 0.88
    assert np.mean(false) <= 0.06


def test_a_difference_as_large_as_needed_is_found_eight_times_of_ten() -> None:
    random, (seeds, questions, rate, spread) = np.random.default_rng(4), (3, 60, 0.2, 0.03)
    answer, found = rate * (1 - rate), []
    for _ in range(400):
        shared = random.standard_normal(questions) * np.sqrt(answer / 4)
        tables = [
            shared
            + random.standard_normal(questions) * np.sqrt(answer / 4)
            + random.standard_normal((seeds, questions)) * np.sqrt(answer / 2)
            + random.standard_normal((seeds, 1)) * spread
            for _ in range(2)
        ]
        found.append(crossed_difference(tables[0] + needed(seeds, questions, rate, spread), tables[1]).p < 0.05)
    assert 0.72 <= np.mean(found) <= 0.88


def test_what_does_not_vary_is_taken_for_what_it_is() -> None:
    assert crossed_share(np.array([[1.0, 0.0, 0.0, 1.0]])) == wilson(2, 4)
    alike = np.repeat([[1.0, 0.0] * 10], 3, axis=0)
    # Three trainings that answer alike count as one; so do those of which nothing ever went wrong.
    assert crossed_share(alike).low == pytest.approx(clustered_share(alike.T.tolist()).low)
    assert crossed_share(np.zeros((3, 20))).high == pytest.approx(wilson(0, 20).high)
    assert spread_of(alike) == 0
    apart, same = crossed_difference(np.ones((2, 20)), np.zeros((2, 20))), crossed_difference(alike, alike)
    assert (apart.p < 1e-5, apart.interval.low > 0.8, same.p, same.interval.rate) == (True, True, 1.0, 0.0)
    assert crossed_difference(np.ones((2, 1)), np.zeros((2, 1))).p == 1
    # Two trainings far apart say next to nothing of a third.
    torn = crossed_share(np.array([[1.0] * 50, [0.0] * 50]))
    assert torn.high - torn.low > 0.9
