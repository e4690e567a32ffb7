"""Entries of teachers: an endpoint, several alike, or a server to be started.

Reads `pipelines/teachers/teachers.yaml` and users' files of its shape; writes nothing. Secrets are no part of an entry:
it names the environment variable that holds its key.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.errors import UserError
from pipelines.settings.keys import check_url, check_variable, keys_within
from pipelines.settings.parts import Part, read_yaml, validated
from pipelines.thinking import ReasoningStyle

TEACHERS = Path(__file__).parents[1] / "teachers" / "teachers.yaml"


class Sampling(Part):
    """What is sent to a teacher with every request; a null is not sent."""

    temperature: float | None = Field(default=0.6, ge=0, le=2)
    top_p: float | None = Field(default=0.95, gt=0, le=1)
    max_tokens: int | None = Field(default=8192, ge=1, description="most tokens of reasoning and answer together")
    seed: int | None = Field(default=None, description="sent as it is; null where an endpoint takes no seed")


class Price(Part):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0, description="null where cached input costs as any other")

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """US dollars for one answer; `cached_tokens` are those of the input that the endpoint had cached."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached_price + output_tokens * self.output) / 1e6


class Serve(Part):
    """A vLLM server that is started for a run and stopped at its end."""

    model: str
    args: tuple[str, ...] = Field(default=(), description="further arguments of `vllm serve`, one string each")
    health_timeout_s: float = Field(default=900, gt=0, description="how long loading may take")


class Teacher(Part):
    """An OpenAI-compatible endpoint, or several alike, or a server to be started."""

    model: str
    base_url: str | None = Field(default=None, description="null for an embedded or a served teacher")
    base_urls: tuple[str, ...] = Field(default=(), description="several servers of one model; the least busy is asked")
    embedded: bool = Field(default=False, description="served by this process, as the rehearsal teacher is")
    serve: Serve | None = Field(default=None, description="start this server for the run")
    transport: Literal["requests", "batch"] = Field(default="requests", description="batch: OpenAI's Batch API")
    api_key_env: str | None = Field(default=None, description="environment variable that holds the key")
    sampling: Sampling = Sampling()
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="what the endpoint calls sampling.max_tokens"
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="further fields of the request, sent as is")
    reasoning_style: ReasoningStyle = Field(default="auto", description="where the server puts reasoning")
    in_flight: int = Field(default=32, ge=1, le=4096, description="most requests under way at once, at each server")
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0, description="of input and output together")
    context_length: int | None = Field(default=None, ge=1, description="tokens of prompt and answer together")
    stream: Literal["auto"] | bool = Field(
        default="auto", description="auto streams long answers of other machines; see docs/teachers.md"
    )
    attempt_timeout_s: float = Field(
        default=900, gt=0, description="after this without an answer, or the first piece of a stream, it is asked again"
    )
    idle_timeout_s: float = Field(default=120, gt=0, description="most time between two pieces of a streamed answer")
    retries: int = Field(default=6, ge=0, le=50, description="for 408, 409, 425, 429, 5xx, cut connections and hangs")
    price: Price | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Every endpoint that the entry names; none for an embedded or served teacher."""
        return ((self.base_url,) if self.base_url else ()) + self.base_urls

    @property
    def place(self) -> str:
        """Where answers come from, as it is told in tables, reports and cards."""
        if self.embedded:
            return "embedded rehearsal teacher, not a model"
        return ", ".join(self.urls) or "a vLLM server, started for the run"

    @field_validator("base_url", "base_urls")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            check_url(url)
        return value

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None:
            check_variable(value)
        return value

    @field_validator("extra_body")
    @classmethod
    def _no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        if (found := next(keys_within(value), None)) is not None:
            raise ValueError(
                f"'{found}' holds a key, which files of the run would show. Put it into an environment variable and "
                "name that with api_key_env"
            )
        return value

    @model_validator(mode="after")
    def _reachable(self) -> "Teacher":
        if bool(self.urls) + self.embedded + (self.serve is not None) != 1:
            raise ValueError("a teacher has one of base_url (or base_urls), `embedded: true` and serve")
        if self.transport == "batch" and len(self.urls) != 1:
            raise ValueError("transport: batch needs one base_url, where the batches are found again")
        return self


def load_teachers(extra: Path | None = None) -> dict[str, Teacher]:
    """The shipped teachers, and those of a user's file on top."""
    return {**teachers_in(TEACHERS), **(teachers_in(extra) if extra else {})}


def teachers_in(path: Path) -> dict[str, Teacher]:
    """The entries of one file.

    Raises:
        UserError: it is missing, or an entry does not fit.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no teachers: it must map names to entries, as {TEACHERS.name} does.")
    return {str(name): validated(Teacher, value, f"teacher '{name}' in {path}") for name, value in values.items()}
