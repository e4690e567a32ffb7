"""Rows of a stage whose requests failed: how many, which of them would fail again, and why.

Reads and writes nothing. Generation keeps such rows in failed.parquet; a judge that cannot be asked leaves its row
unscored, with a reason that `reason_of` writes and `read_reason` reads; repair leaves the row as it was.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.teachers.client import TeacherError

# So many different reasons are listed.
_REASONS = 10
_FAILED, _REFUSED = "request failed", "request refused for good"
_REASON = re.compile(rf"(?:part \d+ of \d+: )?({_FAILED}|{_REFUSED}): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one row's request failed; a `permanent` one would fail again."""

    text: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Failures:
    """Rows that failed, `permanent` of them for good, and the texts, the most frequent first, with their rows."""

    rows: int = 0
    permanent: int = 0
    reasons: tuple[tuple[str, int], ...] = ()

    def record(self) -> dict[str, Any]:
        """The same for a manifest."""
        reasons = [{"text": text, "rows": rows} for text, rows in self.reasons]
        return {"rows": self.rows, "permanent": self.permanent, "reasons": reasons}


NONE = Failures()


def count(failures: Iterable[Failure]) -> Failures:
    """Count one failure for each row that has any."""
    found = list(failures)
    reasons = Counter(failure.text for failure in found).most_common(_REASONS)
    return Failures(len(found), sum(failure.permanent for failure in found), tuple(reasons))


def failure_of(error: "TeacherError") -> Failure:
    """A final failure of a row's request. What is refused as malformed is so for good as well: where that is the
    settings' fault it holds for every row, and stops the stage."""
    return Failure(str(error), error.permanent or error.refused)


def reason_of(error: "TeacherError") -> str:
    """What a judgement that could not be asked for says in place of a verdict."""
    failure = failure_of(error)
    return f"{_REFUSED if failure.permanent else _FAILED}: {failure.text}"


def read_reason(reason: str) -> Failure | None:
    """The failure that a judgement's reason tells of, None where it is another reason or none."""
    match = _REASON.match(reason)
    return Failure(match[2], match[1] == _REFUSED) if match else None


def worst(failures: Iterable[Failure | None]) -> Failure | None:
    """The failure that decides about a row with several: one that may pass, since the row is then asked for again."""
    found = [failure for failure in failures if failure is not None]
    return min(found, key=lambda failure: failure.permanent, default=None)
