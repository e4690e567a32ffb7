"""How long a server asks to be left alone, and how long to wait where it does not say.

Reads the headers of an answer; writes nothing. The client of teachers, evaluation and publishing use it.
"""

import math
import os
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipelines.errors import UserError

# Whatever a server asks for, no wait is longer: an attempt finds out sooner whether it has changed its mind.
LONGEST_S = 60.0
# Backoff grows from here, and tests set it to 0.
FIRST_S = 0.5
# Go's durations, as OpenAI and Groq write them: 1h2m3.5s, 120ms.
_DURATION = re.compile(r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?!s))?(?:(?P<s>[\d.]+)s)?(?:(?P<ms>[\d.]+)ms)?")
_PARTS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# A number beyond this is a time of day, in seconds or (beyond the next) milliseconds since 1970.
_EPOCH, _EPOCH_MS = 1e9, 1e11


def asked_wait(headers: Mapping[str, str], longest: float | None = None) -> float | None:
    """Seconds that a server asks to wait, at most `longest` (`LONGEST_S` if not given); None where it does not say, or
    says nothing sensible.

    Heeded, in this order: `retry-after-ms`; `retry-after`, in seconds or as a date; `x-ratelimit-reset-requests` and
    `-tokens` of a limit that is used up; `x-ratelimit-reset` and `ratelimit-reset`, in seconds, as a duration or as a
    time since 1970. Names are in lower case.
    """
    longest = LONGEST_S if longest is None else longest
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000, longest)
    after = headers.get("retry-after")
    if after is not None:
        seconds = _number(after)
        return _bounded(_until_date(after) if seconds is None else seconds, longest)
    used_up = [
        _reset(headers.get(f"x-ratelimit-reset-{what}"))
        for what in ("requests", "tokens")
        if (_number(headers.get(f"x-ratelimit-remaining-{what}")) or 0) <= 0
    ]
    resets = [seconds for seconds in used_up if seconds is not None]
    if resets:
        return _bounded(max(resets), longest)
    return _bounded(_reset(headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset")), longest)


def backoff(attempt: int) -> float:
    """Seconds before the attempt that follows the `attempt`-th (from 1): up to twice as long each time, with jitter."""
    return random.uniform(0, min(LONGEST_S, FIRST_S * 2.0 ** min(attempt, 16)))


def _bounded(seconds: float | None, longest: float) -> float | None:
    if seconds is None or math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, longest)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _until_date(text: str) -> float | None:
    try:
        until = parsedate_to_datetime(text)
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _reset(text: str | None) -> float | None:
    if not text:
        return None
    number = _number(text)
    if number is not None:
        if number >= _EPOCH_MS:
            number /= 1000
        return max(0.0, number - time.time()) if number >= _EPOCH else number
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return _until_date(text)
    parts = [(_number(amount), _PARTS[unit]) for unit, amount in found.groupdict().items() if amount]
    return sum(amount * size for amount, size in parts if amount is not None)


def seconds_from(variable: str, default: float) -> float:
    """What an environment variable says, in seconds; the default where it says nothing.

    Raises:
        UserError: it is no number of seconds.
    """
    given = os.environ.get(variable)
    try:
        seconds = float(given) if given else default
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UserError(f"{variable} is '{given}'; give seconds, such as 120.")
    return seconds
