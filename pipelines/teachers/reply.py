"""A reply: what came back for one request, and how the ledger keeps it as JSON. Reads and writes nothing."""

import json
import math
from dataclasses import dataclass, fields
from typing import Any


class DamagedReply(ValueError):
    """A reply whose fields are not what `Reply` holds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request. Tokens are the endpoint's counts (`cached_tokens` are part of the input), cost is
    in US dollars, latency in seconds. `first_token_s`: seconds to the first piece of a streamed answer, None for any
    other. `notes`: what was odd about the answer, "" where nothing was. `refusal`: the API marked the answer as
    one. `logprobs`: JSON of the tokens of the content, each with its log-probability, "" where the server gave none.
    Ledgers of before have none of the four."""

    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None
    latency_s: float
    cached_tokens: int = 0
    first_token_s: float | None = None
    notes: str = ""
    refusal: bool = False
    logprobs: str = ""

    def __post_init__(self) -> None:
        for name, wanted in _FIELDS:
            value = getattr(self, name)
            if not _fits(value, wanted):
                raise DamagedReply(f"{name} is {type(value).__name__} {str(value)[:60]!r}")

    def json(self) -> str:
        """The reply as the ledger keeps it."""
        values = {name: getattr(self, name) for name, _ in _FIELDS if name != "logprobs" or self.logprobs}
        return json.dumps(values, ensure_ascii=False)


_FIELDS = tuple((item.name, str(item.type)) for item in fields(Reply))


def _fits(value: Any, wanted: str) -> bool:
    if isinstance(value, bool) or "bool" in wanted:
        return isinstance(value, bool) and "bool" in wanted
    if "int" in wanted:
        return isinstance(value, int) and 0 <= value < 2**63
    if "float" in wanted:
        number = isinstance(value, int | float) and math.isfinite(value)
        return number or (value is None and "None" in wanted)
    return isinstance(value, str) or (value is None and "None" in wanted)


def reply_of_json(text: str) -> Reply:
    """A reply as the ledger keeps it.

    Raises:
        DamagedReply: the text is no reply.
    """
    try:
        return Reply(**json.loads(text))
    except DamagedReply:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedReply(f"its JSON does not fit ({error})") from error
