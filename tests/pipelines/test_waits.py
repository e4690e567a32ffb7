"""How long to wait: every form in which servers say it, none of which can make a client wait for ever."""

import asyncio
import time
from email.utils import formatdate

import pytest

from pipelines.teachers.limits import RateLimits
from pipelines.teachers.waits import LONGEST_S, asked_wait, backoff


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, LONGEST_S),
        ({"retry-after": "1e999"}, LONGEST_S),
        ({"retry-after": "86400"}, LONGEST_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 9999 07:28:00 GMT"}, LONGEST_S),
        ({"retry-after": "Wed, 99 Oct 2015 99:28:00 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "nan"}, None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "120ms"}, 1),
        ({"x-ratelimit-reset-requests": "1m2.5s"}, LONGEST_S),
        ({"x-ratelimit-reset-requests": "9s", "x-ratelimit-remaining-requests": "5"}, None),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}, LONGEST_S),
        ({"x-ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-reset": "later"}, None),
        ({"ratelimit-reset": "5"}, 5),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers) == seconds


def test_times_of_day_are_counted_from_now() -> None:
    in_half_a_minute = time.time() + 30
    for headers in (
        {"retry-after": formatdate(in_half_a_minute, usegmt=True)},
        {"x-ratelimit-reset": str(int(in_half_a_minute))},
        {"x-ratelimit-reset": str(int(in_half_a_minute * 1000))},
    ):
        asked = asked_wait(headers)
        assert asked is not None
        # A machine may be busy for a while between the two.
        assert 0 <= asked <= 30.1


def test_a_longer_bound_can_be_given() -> None:
    assert asked_wait({"retry-after": "500"}, longest=600) == 500


def test_backoff_grows_and_is_bounded() -> None:
    assert all(0 <= backoff(1) <= 1 for _ in range(100))
    assert max(backoff(40) for _ in range(200)) <= LONGEST_S
    assert max(backoff(6) for _ in range(200)) > 1


def test_a_pause_without_a_time_is_one_sign_however_many_requests_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(attempt: int) -> float:
        asked.append(attempt)
        return 30.0

    monkeypatch.setattr("pipelines.teachers.limits.backoff", noted)

    async def refused() -> None:
        limits = RateLimits(None, None)
        for _ in range(50):
            limits.pause(None)

    asyncio.run(refused())
    assert asked == [1]
