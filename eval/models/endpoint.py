"""An OpenAI-compatible endpoint as an Inspect model: `endpoint/<model>`, asked and read as a teacher is.

Reads and writes nothing itself. The client and the table of `pipelines/teachers/client.py` and
`pipelines/teachers/replies.py` decide what an answer means, so that generation and evaluation never differ; Inspect
decides how often to ask. Beyond that, an endpoint that is gone is given up, instead of being asked in vain for every
sample.
"""

import time
from dataclasses import asdict
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelCall,
    ModelOutput,
    ModelUsage,
    RetryDecision,
    StopReason,
    modelapi,
)

# The public messages_to_openai reads the metadata of the package openai anew for every request.
from inspect_ai.model._openai import messages_to_openai, openai_completion_params
from inspect_ai.tool import ToolChoice, ToolInfo
from tenacity import RetryCallState
from tenacity.wait import wait_base

from eval.models.responses import is_begun, message_of
from eval.scorers.refusals import REFUSAL
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import SUSPECTS_TO_STOP, TeacherClient, passing
from pipelines.teachers.finish_reasons import STOP
from pipelines.teachers.replies import ReplyFailure
from pipelines.teachers.reply import Reply
from pipelines.teachers.transport import ConnectionFailed
from pipelines.teachers.waits import backoff
from pipelines.thinking import ReasoningStyle, Thought, split

# So long may an endpoint refuse every connection before it is given up; one that is restarted comes back sooner.
GONE_AFTER_S = 60.0
# What vLLM and SGLang take for: go on from the last message. Other servers leave it unread, or refuse it.
_GO_ON = {"continue_final_message": True, "add_generation_prompt": False}
_STOPS: dict[str, StopReason] = {
    STOP: "stop",
    "length": "max_tokens",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
}


class EndpointGone(Exception):
    """The endpoint has been given up: nothing can be connected to, or it refuses every request."""


class RequestRefused(Exception):
    """The endpoint refused this request; the message is its own."""


class _Wait(wait_base):
    """The server's wait where it asked for one, else backoff with jitter. After a rate limit the pause that all
    requests of the endpoint share decides."""

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, ReplyFailure) and error.kind == "rate":
            return 0.0
        if isinstance(error, ReplyFailure) and error.wait_s is not None:
            return error.wait_s
        return backoff(retry_state.attempt_number)


class EndpointAPI(ModelAPI):
    """Inspect's face of an entry of teachers.yaml; the model's name is what requests call it."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - the signature Inspect calls
        *,
        entry: str = "",
        style: ReasoningStyle = "auto",
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        **patience: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, ["ENDPOINT_API_KEY"], config)
        self.entry = entry
        self.style = style
        limits: dict[str, Any] = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        if config.max_connections is not None:
            limits["in_flight"] = config.max_connections
        # `patience`: attempt_timeout_s, stream and idle_timeout_s of the entry, where it has them.
        teacher = Teacher(model=model_name, base_url=base_url, **limits, **patience)
        self._client = TeacherClient(entry or model_name, teacher, teacher.urls, key=self.api_key or "none")
        self._refused_since: float | None = None
        self.suspects = 0
        self._why_gone = ""

    @property
    def gone(self) -> bool:
        """Whether the endpoint has been given up."""
        return bool(self._why_gone)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()

    def connection_key(self) -> str:
        """One pool of connections for each key and model, as Inspect's own providers have."""
        return f"{self.initial_api_key}{self.model_name}"

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput | tuple[ModelOutput | Exception, ModelCall]:
        """Ask once.

        Raises:
            EndpointGone: it has been given up.
            RequestRefused: it says that the request is wrong; asking again would not help.
            ReplyFailure: another attempt may do better.
        """
        if self.gone:
            raise EndpointGone(self._why_gone)
        if tools:
            raise NotImplementedError("An endpoint is measured by its words; no task gives it tools.")
        request = openai_completion_params(self.model_name, config, tools=False)
        request.pop("model")
        messages: Any = await messages_to_openai(input)
        if begun := is_begun(input):
            request["extra_body"] = {**(request.get("extra_body") or {}), **_GO_ON}
        try:
            reply = await self._client.attempt(messages, request)
        except ReplyFailure as failure:
            if passing(failure):
                raise
            self._count(failure)
            raise (EndpointGone if self.gone else RequestRefused)(str(failure)) from failure
        self._refused_since = None
        self.suspects = 0
        output = _output(self.model_name, reply, self._thought(reply, begun))
        call = ModelCall.create({"messages": messages, **request}, asdict(reply), time=reply.latency_s)
        return output, call

    def _count(self, failure: ReplyFailure) -> None:
        """Give the endpoint up where a refusal holds for every request."""
        self.suspects += failure.kind == "suspect" and not self._client.limits.answers
        if failure.kind == "fatal" or self.suspects >= SUSPECTS_TO_STOP:
            self._why_gone = f"{self.base_url} refuses every request: {failure}"

    def should_retry(self, ex: BaseException) -> bool | RetryDecision:
        """By the kind of the failure, until the endpoint is given up."""
        if isinstance(ex, ConnectionFailed) and ex.unreachable:
            now = time.monotonic()
            self._refused_since = self._refused_since or now
            if now - self._refused_since >= GONE_AFTER_S:
                self._why_gone = f"{self.base_url} did not accept a connection for {GONE_AFTER_S:.0f} s"
        if self.gone or not isinstance(ex, ReplyFailure) or not passing(ex):
            return RetryDecision.no()
        return RetryDecision.rate_limit(ex.wait_s) if ex.kind == "rate" else RetryDecision.transient(ex.wait_s)

    def retry_wait(self) -> wait_base:
        """How long until the next attempt."""
        return _Wait()

    def _thought(self, reply: Reply, begun: bool) -> Thought:
        # A server that gives it in a field has seen to the opener itself, whatever the chat template says. Where the
        # response was begun here, the template did not open it.
        apart = begun or reply.reasoning_content or reply.reasoning
        return split(reply.content, reply.reasoning_content, reply.reasoning, "auto" if apart else self.style)


def _output(model: str, reply: Reply, thought: Thought) -> ModelOutput:
    usage = ModelUsage(
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        total_tokens=reply.input_tokens + reply.output_tokens,
        input_tokens_cache_read=reply.cached_tokens or None,
    )
    message = message_of(thought, model)
    if reply.refusal:
        message.metadata = {**(message.metadata or {}), REFUSAL: True}
    choice = ChatCompletionChoice(message=message, stop_reason=_STOPS.get(reply.finish_reason, "unknown"))
    return ModelOutput(model=model, choices=[choice], usage=usage, time=reply.latency_s)


@modelapi(name="endpoint")
def endpoint() -> type[ModelAPI]:
    """Makes `endpoint/<model>` a model name. The class stays a class: the decorator would turn it into a function."""
    return EndpointAPI
