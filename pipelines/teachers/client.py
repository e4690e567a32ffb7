"""Asking a teacher over the OpenAI protocol, without losing its reasoning and without giving up too early.

Reads a teacher's entry, and its key from the environment; writes nothing. What an answer means is decided in
`pipelines/teachers/replies.py`; here is how often and how patiently it is asked for. An attempt is bounded in time,
what is worth repeating is repeated with backoff and jitter, and a rate limit holds all of the teacher's requests back.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import tenacity

from pipelines.errors import UserError
from pipelines.prompts.variant import Message
from pipelines.settings.teacher import Teacher
from pipelines.teachers.limits import RateLimits
from pipelines.teachers.load_balancer import Endpoints
from pipelines.teachers.replies import HttpAnswer, ReplyFailure, read_answer, read_document
from pipelines.teachers.reply import Reply
from pipelines.teachers.streams import StreamedReply
from pipelines.teachers.transport import ConnectionFailed, Incoming, Transport, is_loopback
from pipelines.teachers.waits import backoff

# A request for fewer tokens is answered long before a proxy loses its patience.
STREAMED_TOKENS = 4096
# So many refusals (403, 404, a redirect) without a single answer hold for every request.
SUSPECTS_TO_STOP = 5
_NO_KEY = "none"


class TeacherError(Exception):
    """A request that finally failed.

    Attributes:
        fatal: Every other request would fail the same way: the run stops.
        permanent: This input will always be refused; asking again is in vain.
        refused: It was told to be malformed (400, 422), which may be the fault of one prompt or of all requests.
        transient: Neither fatal nor permanent: asking again later may help.
        status: The HTTP status, None where there was none.
        unreachable: Not even a connection was made.
    """

    def __init__(
        self,
        message: str,
        fatal: bool = False,
        refused: bool = False,
        *,
        permanent: bool = False,
        status: int | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.fatal, self.refused, self.permanent = fatal, refused, permanent
        self.status, self.unreachable = status, unreachable

    @property
    def transient(self) -> bool:
        """Whether asking again later may help."""
        return not self.fatal and not self.permanent


def api_key(name: str, teacher: Teacher) -> str:
    """The key of a teacher, from the environment.

    Raises:
        UserError: the variable that the entry names is not set.
    """
    if teacher.api_key_env is None:
        return _NO_KEY  # OpenAI's client insists on a value; local servers ignore it
    key = os.environ.get(teacher.api_key_env, "").strip()
    if not key:
        raise UserError(f"Teacher '{name}' needs its key in the environment: export {teacher.api_key_env}=...")
    return key


def worth_repeating(error: BaseException) -> bool:
    """Whether another call of OpenAI's client may do better: rate limits, server errors, cut connections, hangs."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError)


class TeacherClient:
    """One teacher's client, over all its servers; use as an async context manager, from one event loop.

    Args:
        name: The teacher's name, for messages.
        base_urls: Where it answers.
        key: In place of the one that the environment holds.
    """

    def __init__(self, name: str, teacher: Teacher, base_urls: Sequence[str], key: str | None = None) -> None:
        self.name, self.teacher = name, teacher
        self.gate = asyncio.Semaphore(teacher.in_flight * len(base_urls))
        self.limits = RateLimits(teacher.requests_per_minute, teacher.tokens_per_minute)
        self._key = api_key(name, teacher) if key is None else key
        self._endpoints = Endpoints(Transport(url, self._key, teacher.in_flight) for url in base_urls)
        self._remote = not all(is_loopback(urlsplit(url).hostname) for url in base_urls)
        self._suspects = 0
        # What this server has shown not to take.
        self._refuses_streams = False
        self._refuses_usage = False

    async def __aenter__(self) -> "TeacherClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._endpoints.close()

    @property
    def elsewhere(self) -> bool:
        """Whether a failed connection may be repeated at another server at once."""
        return self._endpoints.choice

    async def ask(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        """Ask once, with retries.

        Raises:
            TeacherError: all attempts failed, or no attempt could succeed.
        """
        patience = Patience(self)
        try:
            try:
                return await self.attempt(messages, fields)
            except ReplyFailure as failure:
                return await self._again(failure, patience, messages, fields)
        except ReplyFailure as failure:
            raise self._final(failure, patience.attempts) from failure

    async def _again(
        self, first: ReplyFailure, patience: "Patience", messages: Sequence[Message], fields: Mapping[str, Any]
    ) -> Reply:
        """The attempts after the first. Most requests need none, and are spared what keeping count of them takes."""
        earlier = [first]

        async def attempt() -> Reply:
            if earlier:
                raise earlier.pop()
            return await self.attempt(messages, fields)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(passing), stop=patience.stop, wait=patience.wait, reraise=True
        )
        return await retrying(attempt)

    async def attempt(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        """Ask once, without retries; a server that does not stream is asked a second time without it.

        Raises:
            ReplyFailure: no reply.
        """
        taken = await self.limits.admit(messages)
        try:
            reply = await self._send(messages, fields)
        except ReplyFailure as failure:
            if failure.kind == "rate":
                self.limits.pause(failure.wait_s)
            raise
        self._suspects = 0
        self.limits.settle(taken, reply)
        return reply

    async def _send(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        streamed = self.streams(fields)
        try:
            return await self.exchange(self._request(messages, fields, streamed))
        except ReplyFailure as failure:
            if not streamed or failure.kind != "malformed" or "stream" not in str(failure).lower():
                raise
            # The field that asks for usage is the younger one, and refused more often.
            if not self._refuses_usage:
                self._refuses_usage = True
            elif self.teacher.stream == "auto":
                self._refuses_streams = True
            else:
                raise
        return await self._send(messages, fields)

    def streams(self, fields: Mapping[str, Any]) -> bool:
        """Whether a request with these fields is answered in a stream.

        `auto` streams an answer that may be long, from another machine: on the way from there, proxies and balancers
        end connections that are silent for a minute or two. On this machine nothing does, and a stream only costs.
        """
        if self.teacher.stream != "auto":
            return self.teacher.stream
        limit = fields.get("max_tokens") or fields.get("max_completion_tokens")
        may_be_long = not isinstance(limit, int) or limit >= STREAMED_TOKENS
        return self._remote and may_be_long and not self._refuses_streams

    def _request(self, messages: Sequence[Message], fields: Mapping[str, Any], streamed: bool) -> dict[str, Any]:
        request = request_body(self.teacher, messages, fields)
        if streamed:
            request["stream"] = True
            if not self._refuses_usage:
                request.setdefault("stream_options", {"include_usage": True})
        return request

    async def exchange(self, request: dict[str, Any]) -> Reply:
        """One request, as it goes over the wire, and its answer, within the time that the teacher has.

        Raises:
            ReplyFailure: no reply.
        """
        reading = _Reading(self.teacher, self._key)
        try:
            with self._endpoints.least_busy() as transport:
                async with (
                    asyncio.timeout(self.teacher.attempt_timeout_s) as deadline,
                    transport.post("chat/completions", request) as incoming,
                ):
                    await reading.read(incoming, deadline)
        except (TimeoutError, ConnectionFailed) as error:
            if not reading.cut():
                raise _late(error, self.teacher) from error
        return reading.reply()

    def _final(self, failure: ReplyFailure, attempts: int) -> TeacherError:
        """The end of a request's attempts."""
        fatal = failure.kind == "fatal"
        if failure.kind == "suspect" and not self.limits.answers:
            self._suspects += 1
            fatal = self._suspects >= SUSPECTS_TO_STOP
        # A 403 is held against an input only once another input was answered.
        permanent = failure.kind in ("row", "too_long") or (
            failure.kind == "suspect" and failure.status == 403 and self.limits.answers > 0
        )
        message = f"teacher '{self.name}' refused: {failure}" if fatal else str(failure)
        if isinstance(failure.__cause__, TimeoutError) and attempts > 1:
            message += f", {attempts} times"
        return TeacherError(
            message,
            fatal=fatal,
            refused=failure.kind in ("malformed", "too_long"),
            permanent=permanent and not fatal,
            status=failure.status,
            unreachable=isinstance(failure, ConnectionFailed) and failure.unreachable,
        )


def request_body(teacher: Teacher, messages: Sequence[Message], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A request as it goes over the wire: `extra_body` spread out, and the limit under the endpoint's own name."""
    sent = {
        teacher.limit_field if name == "max_tokens" else name: value
        for name, value in fields.items()
        if name != "extra_body"
    }
    return {"model": teacher.model, "messages": list(messages), **sent, **(fields.get("extra_body") or {})}


def passing(error: BaseException) -> bool:
    """Whether the same request may be answered a little later."""
    return isinstance(error, ReplyFailure) and error.kind in ("retry", "rate")


def _late(error: TimeoutError | ConnectionFailed, teacher: Teacher) -> ReplyFailure:
    if isinstance(error, ConnectionFailed):
        return error
    return ReplyFailure("retry", f"no answer within {teacher.attempt_timeout_s:g} s")


class Patience:
    """The attempts of one request. Being told to wait costs none while others of the teacher's are answered."""

    def __init__(self, client: TeacherClient) -> None:
        self._client = client
        self._answers = client.limits.answers
        self._used = 0
        self.attempts = 0

    def stop(self, state: tenacity.RetryCallState) -> bool:
        """Whether the attempts are used up."""
        error = state.outcome.exception() if state.outcome else None
        self.attempts += 1
        answers, self._answers = self._answers, self._client.limits.answers
        if not (isinstance(error, ReplyFailure) and error.kind == "rate" and self._answers > answers):
            self._used += 1
        return self._used > self._client.teacher.retries

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next attempt; after a rate limit the teacher's own pause decides."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ReplyFailure):
            if error.kind == "rate":
                return 0.0
            if error.wait_s is not None:
                return error.wait_s
        if isinstance(error, ConnectionFailed) and error.unreachable and self._client.elsewhere:
            return 0.0
        return backoff(self._used)


class _Reading:
    """One answer as it comes in, in one piece or as a stream: its body decides, and not what was asked for."""

    def __init__(self, teacher: Teacher, key: str) -> None:
        self._teacher, self._key = teacher, key
        self._started = time.monotonic()
        self._status, self._headers = 0, dict[str, str]()
        self._pieces: list[bytes] = []
        self._stream: StreamedReply | None = None
        self._first_s: float | None = None
        self._cut = False

    async def read(self, incoming: Incoming, deadline: asyncio.Timeout) -> None:
        """Read it to its end. Between pieces of a stream the deadline is the idle one."""
        self._status, self._headers = incoming.status, dict(incoming.headers)
        async for piece in incoming.pieces:
            if self._stream is None:
                self._pieces.append(piece)
                if not self._is_stream():
                    continue
                self._stream = StreamedReply(self._key)
                piece = b"".join(self._pieces)
            if self._stream.feed(piece):
                deadline.reschedule(asyncio.get_running_loop().time() + self._teacher.idle_timeout_s)
            if self._first_s is None and self._stream.started:
                self._first_s = time.monotonic() - self._started

    def _is_stream(self) -> bool:
        if not 200 <= self._status < 300:
            return False
        if "event-stream" in self._headers.get("content-type", ""):
            return True
        # Servers that call a stream by another name; enough of it is here to tell.
        start = b"".join(self._pieces[:4])[:64].lstrip()
        return start.startswith((b"data:", b"event:", b": "))

    def cut(self) -> bool:
        """Note that the answer broke off; whether something of it can be kept."""
        self._cut = True
        return self._stream is not None and self._stream.started

    def reply(self) -> Reply:
        """What the answer means.

        Raises:
            ReplyFailure: it is no reply.
        """
        took = time.monotonic() - self._started
        price = self._teacher.price
        if self._stream is not None:
            document = self._stream.document(self._cut)
            return read_document(document, price, took, self._key, self._first_s, self._headers)
        return read_answer(HttpAnswer(self._status, self._headers, b"".join(self._pieces)), price, took, self._key)
