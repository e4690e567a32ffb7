"""Asking a teacher over the OpenAI protocol, without losing its reasoning and without giving up too early.

The client's own retries are off: an attempt here is bounded by a timeout that interrupts whatever hangs, and what is
worth repeating is repeated with backoff, jitter and the server's Retry-After.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, cast

import openai
import tenacity

from pipelines.config import Price, Teacher
from pipelines.endpoints import Endpoints
from pipelines.errors import UserError
from pipelines.ledger import Reply
from pipelines.limits import RateLimits
from pipelines.variant import Message

_RETRIED_STATUS = {408, 409, 429}
_LONGEST_WAIT_S = 60.0
_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S)


class TeacherError(Exception):
    """A request that finally failed: `fatal` where every other would fail the same way, `refused` where it was told
    to be malformed (400), which may be the fault of one prompt or of all requests."""

    def __init__(self, message: str, fatal: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal
        self.refused = refused


def api_key(name: str, teacher: Teacher) -> str:
    """The key of a teacher, from the environment.

    Raises:
        UserError: the variable that the entry names is not set.
    """
    if teacher.api_key_env is None:
        return "none"  # the client insists on a value; local servers ignore it
    key = os.environ.get(teacher.api_key_env, "")
    if not key:
        raise UserError(f"Teacher '{name}' needs its key in the environment: export {teacher.api_key_env}=...")
    return key


def worth_repeating(error: BaseException) -> bool:
    """Whether another attempt may do better: rate limits, server errors, cut connections, hangs."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in _RETRIED_STATUS or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError | BrokenReply)


class BrokenReply(Exception):
    """The server answered 200 with something that is no chat completion."""


class TeacherClient:
    """One teacher's client, over all its servers; use as an async context manager, from one event loop."""

    def __init__(self, name: str, teacher: Teacher, base_urls: Sequence[str]) -> None:
        self.name, self.teacher = name, teacher
        self.gate = asyncio.Semaphore(teacher.in_flight * len(base_urls))
        self._limits = RateLimits(teacher.requests_per_minute, teacher.tokens_per_minute)
        key = api_key(name, teacher)
        self._endpoints = Endpoints(
            {
                url: openai.AsyncOpenAI(
                    base_url=url,
                    api_key=key,
                    max_retries=0,
                    timeout=teacher.attempt_timeout_s,
                    # Over plain httpx the client itself is the bottleneck with hundreds of requests in flight.
                    http_client=openai.DefaultAioHttpClient(timeout=teacher.attempt_timeout_s),
                )
                for url in base_urls
            }
        )

    async def __aenter__(self) -> "TeacherClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._endpoints.close()

    async def ask(self, messages: Sequence[Message], fields: dict[str, Any]) -> Reply:
        """Ask once, with retries.

        Raises:
            TeacherError: all attempts failed, or no attempt could succeed.
        """
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(worth_repeating),
            stop=tenacity.stop_after_attempt(self.teacher.retries + 1),
            wait=self._wait,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, messages, fields)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise TeacherError(f"teacher '{self.name}' refused: {_told(error)}", fatal=True) from error
        except openai.APIStatusError as error:
            refused = error.status_code in (400, 422)
            raise TeacherError(f"HTTP {error.status_code}: {_told(error)}", refused=refused) from error
        except TimeoutError as error:
            limit = self.teacher.attempt_timeout_s
            raise TeacherError(f"no answer within {limit:g} s, {self.teacher.retries + 1} times") from error
        except (openai.APIConnectionError, BrokenReply) as error:
            cause = error.__cause__ or error
            raise TeacherError(f"{type(cause).__name__}: {str(cause)[:300]}") from error

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next attempt: the server's Retry-After where it gave one, else backoff with jitter."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, openai.APIStatusError):
            try:
                return min(float(error.response.headers["retry-after"]), _LONGEST_WAIT_S)
            except (KeyError, ValueError):
                pass  # no header, or a date; backoff serves
        if isinstance(error, openai.APIConnectionError) and self._endpoints.choice:
            return 0.0
        return float(_BACKOFF(state))

    async def _attempt(self, messages: Sequence[Message], fields: dict[str, Any]) -> Reply:
        taken = await self._limits.admit(messages)
        started = time.monotonic()
        async with self._endpoints.least_busy() as client, asyncio.timeout(self.teacher.attempt_timeout_s):
            completion = await client.chat.completions.create(
                model=self.teacher.model, messages=cast("Any", list(messages)), **fields
            )
        reply = reply_of(completion, self.teacher.price, time.monotonic() - started)
        self._limits.settle(taken, reply)
        return reply


def reply_of(completion: Any, price: Price | None, latency_s: float) -> Reply:
    """What a chat completion says, as the ledger keeps it.

    Raises:
        BrokenReply: it is none.
    """
    try:
        choice = completion.choices[0]
        message = choice.message
        extra = message.model_extra or {}
        usage = completion.usage
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        details = usage.prompt_tokens_details if usage else None
        cached = (details.cached_tokens if details else 0) or 0
        return Reply(
            content=message.content,
            reasoning_content=_text(extra.get("reasoning_content")),
            reasoning=_text(extra.get("reasoning")),
            finish_reason=choice.finish_reason or "",
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            cost=price.of(tokens[0], tokens[1], cached) if price else None,
            latency_s=latency_s,
            cached_tokens=cached,
        )
    except (AttributeError, IndexError, TypeError) as error:
        raise BrokenReply(f"not a chat completion: {str(completion)[:200]}") from error


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _told(error: openai.APIStatusError) -> str:
    """What the server said, in one line, without echoing headers or the request."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or json.dumps(body)
    return " ".join(str(body or error.message).split())[:300]
