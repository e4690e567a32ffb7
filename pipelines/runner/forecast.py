"""What a stage will have taken when it is done: the estimate before its first answer, corrected with each one.

Reads and writes nothing; the session of requests shows it beside its progress. The time left is the progress's own.
"""

from pipelines.runner.estimate import Load
from pipelines.runner.outcomes import Tally

# So many answers weigh as much as the estimate.
_WEIGHT = 10.0


class Forecast:
    """One stage's tokens and dollars, by its estimate and what was answered.

    Args:
        load: What was expected of the requests that are missing; of none, nothing is told.
        rows: How many rows the stage has.
    """

    def __init__(self, load: Load, rows: int) -> None:
        self._load, self._rows = load, rows

    def words(self, tally: Tally, done: int) -> str:
        """Tokens of all requests of this call, and dollars where there is a price; `done` of the rows have ended."""
        if not self._load.requests:
            return ""
        left = max(self._load.requests - tally.answered - tally.failed, 0.0) if done < self._rows else 0.0
        tokens = tally.tokens + left * self._mean(self._load.tokens, tally.tokens, tally.answered)
        about = "about " if left else ""
        priced = f", {about}${self._cost(tally, left):.2f}" if self._load.priced else ""
        return f"{about}{tokens:,.0f} tokens{priced} in all"

    def _cost(self, tally: Tally, left: float) -> float:
        return tally.cost + left * self._mean(self._load.cost, tally.cost, tally.answered)

    def _mean(self, expected: float, answered: float, answers: int) -> float:
        """The mean of one request, the estimate weighing as much as some answers."""
        return (expected / self._load.requests * _WEIGHT + answered) / (_WEIGHT + answers)
