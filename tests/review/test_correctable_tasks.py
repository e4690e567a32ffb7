"""Which rates votes correct: every yes-or-no attack and over-refusal task, by the question that its hits answer."""

import pytest

from eval.report.figures import CORRECTABLE, REFUSED
from eval.review.corrected import Votes, corrected_rate
from eval.review.sample import name_of, strata_of
from eval.suites import TASKS, ready
from tests.eval.made_results import measured, results

# Votes on these say another thing than the rate.
APART = {"strongreject", "xstest_contrasts"}


def test_every_task_that_counts_unsafe_or_refused_answers_is_correctable() -> None:
    measures = {name: spec.measure.name for name, spec in ready(set(TASKS) - {"humaneval", "livecodebench"}).items()}
    assert {name for name, key in measures.items() if key == "asr"} == set(CORRECTABLE) - set(REFUSED)
    assert {name for name, key in measures.items() if key == "over_refusal"} == set(REFUSED)
    assert APART.isdisjoint(CORRECTABLE)


@pytest.mark.parametrize("task", [*CORRECTABLE, *sorted(APART)])
def test_a_rate_is_corrected_by_the_votes_on_its_own_question(task: str) -> None:
    # The guard calls 4 of 8 a hit. People see two of each verdict: one hit is none, both misses are none.
    values = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    made = results([measured("m")], {task: {"m": values}})
    names = [name_of(one) for one in made.answers]
    seen = {names[0]: True, names[1]: False, names[4]: False, names[5]: False}
    # The other question's votes say the opposite, and must not be looked at.
    opposite = {name: not vote for name, vote in seen.items()}
    votes = Votes(opposite, seen) if task in REFUSED else Votes(seen, opposite)
    found = corrected_rate(made.rates[0], made.answers, votes)
    if task in APART:
        assert found is None
        assert strata_of(made) == {}
    else:
        assert found is not None
        assert (found.votes, found.rate.rate) == (4, pytest.approx(0.25))
        assert {name: len(group) for name, group in strata_of(made).items()} == {
            f"{task}/m/hit": 4,
            f"{task}/m/miss": 4,
        }
