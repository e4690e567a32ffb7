"""An OpenAI-compatible endpoint as an Inspect model: `endpoint/<model>`, patient with faults, and honest about them.

Reads and writes nothing itself. Beyond Inspect's own provider for such endpoints: reasoning is taken apart by
`pipelines/thinking.py` in every form it comes in; a request that the server refuses is an error and never an answer
that holds the error's text; Retry-After is heeded; and an endpoint that is gone is given up, instead of being asked in
vain for every sample.
"""

import time
from typing import Any

import httpx2
import openai
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelCall,
    ModelOutput,
    RetryDecision,
    modelapi,
)
from inspect_ai.model._providers.openai_compatible import OpenAICompatibleAPI
from inspect_ai.tool import ToolChoice, ToolInfo
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from tenacity import RetryCallState, wait_random_exponential
from tenacity.wait import wait_base

from eval.responses import message_of
from pipelines.ledger import Reply
from pipelines.limits import RateLimits
from pipelines.thinking import ReasoningStyle, Thought, split
from pipelines.variant import Message

# So long may an endpoint refuse every connection before it is given up; one that is restarted comes back sooner.
GONE_AFTER_S = 60.0
_LONGEST_WAIT_S = 60.0


class EndpointGone(Exception):
    """Nothing could be connected to for so long that asking on makes no sense."""


class RequestRefused(Exception):
    """The endpoint answered that it will not answer this request; with what it said."""


class _Wait(wait_base):
    """The server's Retry-After where it gave one, else backoff with jitter."""

    def __init__(self) -> None:
        self._backoff = wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, openai.APIStatusError):
            try:
                return min(float(error.response.headers["retry-after"]), _LONGEST_WAIT_S)
            except (KeyError, ValueError):
                pass  # no header, or a date; backoff serves
        return float(self._backoff(retry_state))


class EndpointAPI(OpenAICompatibleAPI):
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
    ) -> None:
        # The client's own retries are off: Inspect's are counted, and each attempt of theirs is bounded in time.
        super().__init__(model_name, base_url, api_key, config, service="endpoint", max_retries=0)
        self.entry = entry
        self.style = style
        self._limits = RateLimits(requests_per_minute, tokens_per_minute)
        self._refused_since: float | None = None
        self.gone = False

    def _create_http_client(self) -> Any:
        """openai's own client over aiohttp, which computes less for a request than the one over httpx."""
        return openai.DefaultAioHttpClient()

    def service_model_name(self) -> str:
        """The name for requests, slashes and all."""
        return self.model_name

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput | tuple[ModelOutput | Exception, ModelCall]:
        """Ask once.

        Raises:
            EndpointGone: it has been given up.
            RequestRefused: it says that the request is wrong; asking again would not help.
        """
        if self.gone:
            raise EndpointGone(f"{self.base_url} did not accept a connection for {GONE_AFTER_S:.0f} s")
        taken = await self._limits.admit([Message(role="user", content=message.text) for message in input])
        answered = await super().generate(input, tools, tool_choice, config)
        self._refused_since = None
        if isinstance(answered, tuple) and isinstance(answered[0], openai.APIStatusError):
            # Inspect would put the whole request into the message.
            raise RequestRefused(answered[0].message) from answered[0]
        output = answered[0] if isinstance(answered, tuple) else answered
        if isinstance(output, ModelOutput) and output.usage:
            used = (output.usage.input_tokens, output.usage.output_tokens)
            self._limits.settle(taken, Reply(None, None, None, "", *used, cost=None, latency_s=0.0))
        return answered

    def should_retry(self, ex: BaseException) -> bool | RetryDecision:
        """What Inspect says, until the endpoint is given up."""
        # Over aiohttp a connection that is refused is told as a timeout of connecting.
        timeout = isinstance(ex, openai.APITimeoutError) and not isinstance(ex.__cause__, httpx2.ConnectTimeout)
        if isinstance(ex, openai.APIConnectionError) and not timeout:
            now = time.monotonic()
            self._refused_since = self._refused_since or now
            self.gone = self.gone or now - self._refused_since >= GONE_AFTER_S
        return RetryDecision.no() if self.gone else super().should_retry(ex)

    def retry_wait(self) -> wait_base:
        """How long until the next attempt."""
        return _Wait()

    def handle_bad_request(self, ex: openai.APIStatusError) -> ModelOutput | Exception:
        """The error: Inspect would make an answer of the text of some."""
        return ex

    def chat_choices_from_completion(
        self, completion: ChatCompletion, tools: list[ToolInfo]
    ) -> list[ChatCompletionChoice]:
        """The choices, with reasoning and answer apart."""
        choices = super().chat_choices_from_completion(completion, tools)
        said = sorted(completion.choices, key=lambda one: one.index)
        return [
            choice.model_copy(update={"message": message_of(self._thought(one.message), completion.model)})
            for choice, one in zip(choices, said, strict=True)
        ]

    def _thought(self, message: ChatCompletionMessage) -> Thought:
        extra = message.model_extra or {}
        fields = (extra.get(name) for name in ("reasoning_content", "reasoning"))
        content, thought = (text if isinstance(text, str) else None for text in fields)
        # A server that gives it in a field has seen to the opener itself, whatever the chat template says.
        return split(message.content, content, thought, "auto" if content or thought else self.style)


@modelapi(name="endpoint")
def endpoint() -> type[ModelAPI]:
    """Makes `endpoint/<model>` a model name. The class stays a class: the decorator would turn it into a function."""
    return EndpointAPI
