"""How the rehearsal server is set up, and what goes wrong with which request.

Whether and how an attempt fails is drawn from the seed, the request and the number of the attempt alone: the same run
meets the same faults in any order, and a repeated request can succeed.
"""

import hashlib
import random
from typing import Literal

from pydantic import Field, model_validator

from pipelines.settings.parts import Part

Fault = Literal["429", "500", "hang", "cut", "truncate"]
Style = Literal["reasoning_content", "reasoning", "inline", "missing_opener"]

# Sigma of the heavy-tailed delays: the slowest of a hundred takes about six times the mean.
_SIGMA = 1.0


class RehearsalSettings(Part):
    """Everything that can be told to the rehearsal server. Rates are shares of attempts and add up to at most 1."""

    port: int = Field(default=0, ge=0, le=65535, description="0 for a free one; always on 127.0.0.1")
    style: Style = Field(default="reasoning_content", description="where rehearsal-r1 puts its reasoning")
    seed: int = Field(default=0, description="of answers to requests without a seed, of delays and of faults")
    delay: float = Field(default=0.0, ge=0, le=3600, description="mean seconds before an answer")
    heavy_tail: bool = Field(default=False, description="draw delays from a lognormal of that mean; else all the same")
    fail_429: float = Field(default=0.0, ge=0, le=1, description="share refused with 429 and Retry-After")
    fail_500: float = Field(default=0.0, ge=0, le=1, description="share that fails with 500")
    hang: float = Field(default=0.0, ge=0, le=1, description="share never answered")
    cut: float = Field(default=0.0, ge=0, le=1, description="share whose connection is cut in the middle of the answer")
    truncate: float = Field(default=0.0, ge=0, le=1, description="share cut short with finish_reason length")
    retry_after: int = Field(default=1, ge=0, description="seconds that a 429 asks to wait")
    batch_delay: float = Field(default=0.0, ge=0, le=86400, description="seconds that a batch takes")
    batch_queue: int | None = Field(default=None, ge=1, description="requests that unfinished batches hold at most")
    fail_uploads: int = Field(default=0, ge=0, description="so many uploads, the first ones, fail with 500")
    lose_batches: int = Field(default=0, ge=0, description="so many batches, the first ones, are made but never told")

    @model_validator(mode="after")
    def _shares(self) -> "RehearsalSettings":
        if (total := sum(rate for _, rate in self.rates())) > 1:
            raise ValueError(f"the rates of faults add up to {total:g}, more than 1")
        return self

    def rates(self) -> tuple[tuple[Fault, float], ...]:
        """Each fault with its rate."""
        return (
            ("429", self.fail_429),
            ("500", self.fail_500),
            ("hang", self.hang),
            ("cut", self.cut),
            ("truncate", self.truncate),
        )


def fault_of(settings: RehearsalSettings, request: bytes, attempt: int) -> Fault | None:
    """What befalls the `attempt`-th time (from 0) that a request, given by its digest, is made; None for nothing."""
    chance = _draw("fault", settings.seed, request, attempt).random()
    for fault, rate in settings.rates():
        if chance < rate:
            return fault
        chance -= rate
    return None


def delay_of(settings: RehearsalSettings, request: bytes, attempt: int) -> float:
    """Seconds until an attempt is answered."""
    if not settings.heavy_tail or settings.delay == 0:
        return settings.delay
    draw = _draw("delay", settings.seed, request, attempt)
    return settings.delay * draw.lognormvariate(-(_SIGMA**2) / 2, _SIGMA)


def cut_at(settings: RehearsalSettings, request: bytes, attempt: int) -> float:
    """After which share of its text a truncated or cut answer ends, between 0.1 and 0.9."""
    return _draw("cut", settings.seed, request, attempt).uniform(0.1, 0.9)


def _draw(what: str, seed: int, request: bytes, attempt: int) -> random.Random:
    digest = hashlib.sha256(f"{what} {seed} {attempt} ".encode() + request).digest()
    return random.Random(int.from_bytes(digest[:8]))
