"""What a run of requests comes to: an outcome for each row, a tally for all, and why it ended early."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")

# The share of planned responses that a teacher may refuse for good without stopping what follows.
MAX_FAILED = 0.05


class NotAttempted(Exception):
    """The row is not attempted in this call: the budget is spent, the run is stopped, or nobody is there to ask."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[RowT, ResultT]):
    """How one row ended. `result` is set only where it is done; `permanent` failures would fail again."""

    row: RowT
    state: Literal["done", "failed", "not attempted"]
    result: ResultT | None = None
    reason: str = ""
    permanent: bool = False


@dataclass(slots=True)
class Tally:
    """Counts of one call: rows that ended, requests answered and failed, US dollars, tokens of input and output."""

    rows: int = 0
    answered: int = 0
    failed: int = 0
    cost: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run of requests ended before its rows did.

    signal: stopped from outside. budget: a cap is reached. fatal: every request would fail, as the teacher says.
    broken: nothing more can be done or kept (a full disk, a damaged ledger, the same error again and again).
    """

    kind: Literal["signal", "budget", "fatal", "broken"]
    text: str = ""


class Control:
    """Ends a run of requests early, from any thread or signal handler; the first reason stands."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._listeners: list[Callable[[], None]] = []

    def end(self, ending: Ending) -> None:
        """Ask for the end. Takes no lock: a signal handler may interrupt this very function."""
        if self.ending is None:
            self.ending = ending
            for listener in list(self._listeners):
                listener()

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener`, which must not block, when the end is asked for; at once where it was already."""
        self._listeners.append(listener)
        if self.ending is not None:
            listener()
