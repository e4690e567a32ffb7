"""How fast and how much a run may ask: requests and tokens a minute for each teacher, money and tokens for the run."""

import asyncio
import math
import random
from collections.abc import Sequence

from aiolimiter import AsyncLimiter

from pipelines.prompts.variant import Message
from pipelines.teachers.reply import Reply
from pipelines.teachers.waits import backoff

# Characters of English text to a token, roughly; only limits and estimates use it, never what is reported.
CHARS_PER_TOKEN = 3.5
# What an answer is taken to cost before the first one came back.
_FIRST_OUTPUT_TOKENS = 1000.0
# With nothing known of the cost of an answer, at most so many are under way against a budget.
_BLIND_IN_FLIGHT = 8


class RateLimits:
    """Token buckets of one teacher, and the pause that it asked for, over the attempts of all its requests.

    One event loop only.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = AsyncLimiter(requests_per_minute, 60) if requests_per_minute else None
        self._tokens = AsyncLimiter(tokens_per_minute, 60) if tokens_per_minute else None
        self._output = _FIRST_OUTPUT_TOKENS
        self.answers = 0
        self._pauses = 0
        self._paused_until = 0.0
        self._debts: set[asyncio.Task[None]] = set()

    async def admit(self, messages: Sequence[Message]) -> float:
        """Wait until an attempt may start; the tokens it is taken to need."""
        while (left := self._paused_until - asyncio.get_running_loop().time()) > 0:
            # Not all at once when the pause ends.
            await asyncio.sleep(left * random.uniform(1, 1.2))
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is None:
            return 0.0
        taken = sum(len(message["content"]) for message in messages) / CHARS_PER_TOKEN + self._output
        await self._tokens.acquire(min(taken, self._tokens.max_rate))
        return taken

    def pause(self, asked_s: float | None) -> None:
        """Hold every attempt back after a rate limit: as long as the server asked, else longer each time in a row."""
        now = asyncio.get_running_loop().time()
        if asked_s is None:
            if self._paused_until > now:
                return  # all that were under way are refused at once; that is one sign and not many
            self._pauses += 1
            asked_s = backoff(self._pauses)
        self._paused_until = max(self._paused_until, now + asked_s)

    def settle(self, taken: float, reply: Reply) -> None:
        """Learn from an answer; what it took beyond its estimate is taken from the bucket for those that follow."""
        self.answers += 1
        self._pauses = 0
        if self._tokens is None:
            return
        self._output += (reply.output_tokens - self._output) / self.answers
        more = min(reply.input_tokens + reply.output_tokens - taken, self._tokens.max_rate)
        if more > 0:
            debt = asyncio.create_task(self._tokens.acquire(more))
            self._debts.add(debt)
            debt.add_done_callback(self._debts.discard)


class Budget:
    """Caps on what a run may spend, counted from what its ledger has spent already. One event loop only.

    A request is admitted while what is spent, what is under way and the request itself stay below the caps, each
    request taken to need the mean of those answered so far.
    """

    def __init__(self, max_cost: float | None, max_tokens: int | None, cost: float, tokens: int, answers: int) -> None:
        self._caps = (math.inf if max_cost is None else max_cost, math.inf if max_tokens is None else max_tokens)
        self._spent = [cost, float(tokens)]
        self._answers = answers
        self._under_way = 0
        self._changed = asyncio.Event()

    @property
    def capped(self) -> bool:
        """Whether there is any cap at all."""
        return any(math.isfinite(cap) for cap in self._caps)

    async def admit(self) -> bool:
        """Wait until one more request fits; False where none will."""
        while not self._fits():
            if self._under_way == 0:
                return False
            await self._changed.wait()
        self._under_way += 1
        return True

    def settle(self, reply: Reply | None) -> None:
        """Count a request that was admitted: its answer, or None where it failed."""
        self._under_way -= 1
        if reply is not None:
            self._answers += 1
            self._spent[0] += reply.cost or 0.0
            self._spent[1] += reply.input_tokens + reply.output_tokens
        # Whoever waits now looks again.
        self._changed.set()
        self._changed.clear()

    def _fits(self) -> bool:
        if not self.capped:
            return True
        if self._answers == 0:
            return self._under_way < _BLIND_IN_FLIGHT
        return all(
            spent + (self._under_way + 1) * spent / self._answers <= cap
            for spent, cap in zip(self._spent, self._caps, strict=True)
        )
