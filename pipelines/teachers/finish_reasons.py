"""Why a model stopped: the one list of names that mean it had come to its end, and the names of other endings.

Reads and writes nothing. Generation, judges, evaluation and the quality checks (as the view `natural_stops` of
`curation/sql/views.py`) use it: a text that ended in any other way is cut short, and not trained on as a whole answer.
"""

import re
from collections.abc import Mapping

STOP = "stop"
# A stream that ended before its last event: the connection was cut, or stood still for too long.
CUT = "cut"
# Hugging Face TGI and text-generation-webui, Anthropic, gateways that run its word together, Cohere, the Responses API;
# all compared in lower case.
NATURAL = frozenset({STOP, "eos", "eos_token", "end_turn", "endturn", "stop_sequence", "complete", "completed"})
_LENGTH = frozenset({"max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "token_limit"})
# Gemini, Z.ai, Anthropic's classifiers.
_FILTERED = frozenset(
    {"safety", "sensitive", "refusal", "blocklist", "prohibited_content", "recitation", "spii", "content_filtered"}
)
_LONGEST = 40
# Names of an enumeration, as SDKs print them: FINISH_REASON_STOP, FinishReason.STOP. What tables have for no value.
_ENUM = re.compile(r"^finish_?reason[._]")
_ABSENT = ("none", "null", "nan", "na", "unspecified")


def finish_of(value: object) -> str:
    """A server's finish reason in one spelling: "stop" for every natural end, "length", "content_filter", or the
    server's own word in lower case; "" where it gave none."""
    if isinstance(value, Mapping):
        value = value.get("type")
    if not isinstance(value, str):
        return ""
    word = "".join(sign for sign in value.strip().lower() if sign.isalnum() or sign in "_-. ")[:_LONGEST]
    word = _ENUM.sub("", word)
    if word in _ABSENT:
        return ""
    if word in NATURAL:
        return STOP
    if word in _LENGTH:
        return "length"
    return "content_filter" if word in _FILTERED else word


def cut_short(finish_reason: str) -> bool:
    """Whether a text ended in any way but a natural one. A reason that is not given counts as cut short."""
    return finish_reason.lower() not in NATURAL
