"""What a stage will have taken in all: the estimate at first, what was answered at the end."""

from pipelines.runner.estimate import Load
from pipelines.runner.forecast import Forecast
from pipelines.runner.outcomes import Tally

LOAD = Load(requests=100, tokens=100_000, cost=10.0, seconds=None, priced=True)


def test_the_estimate_is_corrected_with_each_answer() -> None:
    forecast = Forecast(LOAD, 100)
    assert forecast.words(Tally(), 0) == "about 100,000 tokens, about $10.00 in all"
    # Ten answers of half the length weigh as much as the estimate.
    assert forecast.words(Tally(answered=10, tokens=5_000, cost=0.5), 10) == "about 72,500 tokens, about $7.25 in all"
    # What failed is not asked again in this call.
    assert forecast.words(Tally(answered=10, failed=10, tokens=5_000, cost=0.5), 20).startswith("about 65,000 tokens")
    assert forecast.words(Tally(answered=99, failed=1, tokens=49_500, cost=4.95), 100) == "49,500 tokens, $4.95 in all"


def test_more_requests_than_expected_are_no_negative_rest() -> None:
    assert Forecast(LOAD, 100).words(Tally(answered=120, tokens=60_000, cost=6.0), 90) == "60,000 tokens, $6.00 in all"


def test_nothing_is_forecast_of_nothing_and_no_dollars_without_a_price() -> None:
    assert Forecast(Load(), 5).words(Tally(answered=1, tokens=9), 1) == ""
    assert Forecast(Load(requests=2, tokens=200), 2).words(Tally(), 0) == "about 200 tokens in all"
