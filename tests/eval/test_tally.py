"""Counts over repeated samples, missing answers and pairs, against values worked out by hand."""

from typing import Any

import pytest
from inspect_ai.dataset import Sample

from eval.run.answers import Expected, expected_of
from eval.run.metrics import comparisons, rates
from eval.run.results import Answer, Rate
from pipelines.statistics import wilson, wilson_share


def answer(model: str, name: str, epoch: int, value: float | None, **fields: Any) -> Answer:
    kept: dict[str, Any] = {
        "model": model,
        "task": "aime24",
        "id": name,
        "epoch": epoch,
        "category": "",
        "question": "Q",
        "asked": "Q",
        "reasoning": "",
        "answer": "A",
        "value": value,
        "unscored": "" if value is not None else "no answer",
        "error": "",
        "truncated": False,
        "stop_reason": "stop",
        "output_tokens": 1,
        "detail": {},
    }
    return Answer(**kept | fields)


def rated(due: list[Expected], answers: list[Answer]) -> Rate:
    [rate] = [one for one in rates(["m"], {"aime24": due}, answers) if not one.group]
    return rate


def due(questions: int, epochs: int) -> list[Expected]:
    return expected_of([Sample(input="Q", id=f"q{number}") for number in range(questions)], epochs)


def test_repeated_samples_give_a_mean_a_clustered_interval_and_pass_at_k() -> None:
    # Three questions of four samples: 4, 2 and 0 of them right.
    right = {"q0": 4, "q1": 2, "q2": 0}
    answers = [
        answer("m", name, epoch, float(epoch <= count)) for name, count in right.items() for epoch in range(1, 5)
    ]
    rate = rated(due(3, 4), answers)
    assert (rate.questions, rate.expected, rate.n, rate.hits, rate.misses) == (3, 12, 12, 6, 6)
    # Sums differ from 2 by 2, 0 and -2: the variance of the mean is 8 * 3/2 / 144 against 1/48 of independent samples.
    as_three = wilson_share(0.5, 12 / (12 / 144 * 48))
    assert (rate.rate.low, rate.rate.high) == pytest.approx((as_three.low, as_three.high))
    # Of q1's pairs one in six holds no right sample.
    assert rate.pass_at == pytest.approx({1: 0.5, 2: (1 + 5 / 6) / 3, 4: 2 / 3})


def test_missing_failed_and_unscored_answers_stay_in_the_denominator() -> None:
    answers = [
        answer("m", "q0", 1, 1.0),
        answer("m", "q1", 1, None),
        answer("m", "q2", 1, None, unscored="", error="HTTP 500"),
        answer("m", "q3", 1, 0.0, truncated=True),
    ]
    rate = rated(due(6, 1), answers)
    assert (rate.n, rate.expected, rate.complete) == (4, 6, False)
    assert (rate.hits, rate.misses, rate.unscored, rate.errored, rate.truncated) == (1, 1, 1, 1, 1)
    # Of six between one and five are hits: two have no verdict and two never came.
    assert (rate.rate.rate, rate.rate.low, rate.rate.high) == (1 / 6, wilson(1, 6).low, wilson(5, 6).high)
    assert rate.pass_at == {}


def test_models_are_paired_by_question_and_most_of_its_samples_decide() -> None:
    answers = [answer("m", "q0", epoch, float(epoch <= 3)) for epoch in range(1, 5)]
    answers += [answer("m", "q1", epoch, float(epoch <= 2)) for epoch in range(1, 5)]
    answers += [answer("n", "q0", epoch, 0.0) for epoch in range(1, 5)]
    [found] = comparisons(["m", "n"], {"aime24": due(2, 4)}, answers)
    # Three of four are a hit, two of four are not; answers that never came leave the second question out.
    assert (found.test.pairs, found.test.only_first, found.test.only_second, found.test.left_out) == (1, 1, 0, 1)
    assert found.detectable is None


def test_same_answers_with_unreadable_verdicts_are_no_difference() -> None:
    # The same 50 answers of two models; of the second's, 21 hits have no verdict.
    answers = [answer("m", f"q{number}", 1, float(number < 25)) for number in range(50)]
    answers += [answer("n", f"q{number}", 1, None if number < 21 else float(number < 25)) for number in range(50)]
    [found] = comparisons(["m", "n"], {"aime24": due(50, 1)}, answers)
    assert (found.test.pairs, found.test.only_first, found.test.only_second) == (29, 0, 0)
    assert (found.test.p, found.test.left_out, found.test.p_high) == (1, 21, 1)
    # Had all 21 been misses, it would be this: what counting them as such printed.
    assert found.test.p_low == pytest.approx(2 / 2**21)


def test_model_without_any_verdict_has_no_rate_and_no_test() -> None:
    answers = [answer(model, "q0", 1, value) for model, value in (("m", 1.0), ("n", None))]
    found = {rate.model: rate.known for rate in rates(["m", "n"], {"aime24": due(1, 1)}, answers)}
    assert found == {"m": True, "n": False}
    [one] = comparisons(["m", "n"], {"aime24": due(1, 1)}, answers)
    assert (one.test.pairs, one.test.left_out, one.detectable) == (0, 1, None)


def test_rates_come_by_category_where_there_are_several() -> None:
    samples = [Sample(input="Q", id=name, metadata={"category": name[0]}) for name in ("a1", "a2", "b1")]
    found = rates(["m"], {"aime24": expected_of(samples, 1)}, [])
    assert [(rate.group, rate.expected, rate.n) for rate in found] == [("", 3, 0), ("a", 2, 0), ("b", 1, 0)]


def test_questions_that_could_not_be_told_apart_are_refused() -> None:
    for ids in (["a", "a"], [None]):
        with pytest.raises(ValueError, match="missing or duplicate"):
            expected_of([Sample(input="Q", id=name) for name in ids], 1)
