"""What a provider says of a batch, read whatever its dialect: statuses in capitals or by other names, times as text.

Reads the object that the client made of the answer; writes nothing. The Batch API's own form is OpenAI's; servers and
gateways that speak it differ in case, in names and in types, and leave out or fill in what has no value.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

Ending = Literal["completed", "expired", "cancelled", "failed"]

# Other names of an ending, in lower case; whatever else a status says, the batch is under way.
_ENDINGS: dict[str, Ending] = {
    **dict.fromkeys(("completed", "complete", "ended", "succeeded", "success", "done", "finished"), "completed"),
    **dict.fromkeys(("partially_completed", "partially_succeeded", "job_state_succeeded"), "completed"),
    **dict.fromkeys(("expired", "timed_out", "timeout", "timeout_exceeded"), "expired"),
    **dict.fromkeys(("cancelled", "canceled", "aborted"), "cancelled"),
    **dict.fromkeys(("failed", "error", "errored", "rejected", "invalid"), "failed"),
}


class Problem(NamedTuple):
    """Why a batch was not begun: the number of the line at fault, None where it is not one line's."""

    line: int | None
    code: str
    message: object


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A batch as the provider tells it.

    `ending` is None while it is under way, and `state` is then the provider's own word. `files` are the ids of its
    output and error files, those that there are. `latency_s` is None where its times tell nothing.
    """

    id: str
    ending: Ending | None
    state: str
    files: tuple[str, ...]
    latency_s: float | None
    settled: int
    problems: tuple[Problem, ...]


def read_status(batch: Any) -> BatchStatus | None:
    """Read it; None where it is no batch at all, such as a page in HTML."""
    state = _text(getattr(batch, "status", None))
    if not state:
        return None
    files = tuple(dict.fromkeys(filter(None, (_text(getattr(batch, name, None)) for name in _FILES))))
    ending = _ENDINGS.get(state.lower().replace("-", "_").replace(" ", "_"))
    problems = tuple(_problems(getattr(batch, "errors", None)))
    # A batch that failed after it began has answers; one that never began has none, and says why.
    if ending == "failed" and files:
        ending = "completed"
    return BatchStatus(
        id=_text(getattr(batch, "id", None)),
        ending=ending,
        state=state[:40],
        files=files,
        latency_s=_latency(batch),
        settled=_settled(getattr(batch, "request_counts", None)),
        problems=problems,
    )


def mark_of(batch: Any, key: str) -> str | None:
    """A value of a batch's metadata."""
    metadata = getattr(batch, "metadata", None)
    return _text(metadata.get(key)) or None if isinstance(metadata, dict) else None


_FILES = ("output_file_id", "error_file_id")
_ENDS = ("completed_at", "expired_at", "cancelled_at", "failed_at", "ended_at", "finalizing_at")


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _latency(batch: Any) -> float | None:
    begun = _seconds(getattr(batch, "created_at", None))
    ended = next((found for name in _ENDS if (found := _seconds(getattr(batch, name, None))) is not None), time.time())
    return None if begun is None else max(ended - begun, 0.0)


def _seconds(value: object) -> float | None:
    """A time in seconds since 1970: a number, a number as text, milliseconds, or a date by ISO 8601."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = datetime.fromisoformat(str(value).strip()).timestamp()
        except (ValueError, OverflowError):
            return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return seconds / 1000 if seconds > 1e11 else seconds


def _settled(counts: Any) -> int:
    return sum(_whole(getattr(counts, name, None)) or 0 for name in ("completed", "failed"))


def _whole(value: object) -> int | None:
    try:
        return max(0, int(float(value))) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None


def _problems(errors: Any) -> list[Problem]:
    listed = getattr(errors, "data", errors)
    found = []
    for one in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
        values = one if isinstance(one, dict) else {name: getattr(one, name, None) for name in Problem._fields}
        found.append(Problem(_whole(values.get("line")), str(values.get("code")), values.get("message")))
    if isinstance(listed, str) and listed.strip():
        found.append(Problem(None, "error", listed))
    return found
