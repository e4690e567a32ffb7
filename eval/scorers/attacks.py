"""What attackers and judges of attacks reply, read: a JSON object with a prompt, a rating in double brackets.

Reads and writes nothing. Models do not keep to formats; what cannot be read is None, and is asked for again.
"""

import ast
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LOWEST, HIGHEST = 1, 10
_RATING = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
# Looking for an object at every brace of a reply takes time by the square of its braces; attackers write few.
_MOST_BRACES = 200


@dataclass(frozen=True, slots=True)
class Attack:
    """An attacker's prompt, and its own description of the change."""

    prompt: str
    improvement: str


def read_attack(reply: str) -> Attack | None:
    """The last object of a reply that has words under `prompt` and text under `improvement`; None for none.

    JSON anywhere in the text: in a code fence, after prose, with braces and line breaks inside its strings. A Python
    dictionary with single quotes is read too; line breaks in its strings become spaces.
    """
    found = [attack for value in _objects(reply) if (attack := _attack(value)) is not None]
    return found[-1] if found else None


def read_rating(reply: str) -> int | None:
    """The rating of a reply that has one in double square brackets, `[[7]]`, whole and from 1 to 10.

    None where there is none, where it is no such number, or where there are several that differ: the text that is
    rated may hold one of its own, which a judge may quote.
    """
    found = {text.strip() for text in _RATING.findall(reply)}
    if len(found) != 1 or not re.fullmatch(r"[0-9]{1,2}", text := found.pop()):
        return None
    return int(text) if LOWEST <= int(text) <= HIGHEST else None


def _objects(reply: str) -> Iterator[Any]:
    # Not strict: a line break stands in many a string of a model's.
    decoder = json.JSONDecoder(strict=False)
    at = reply.find("{")
    for _ in range(_MOST_BRACES):
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(reply, at)
        except (ValueError, RecursionError):
            value, end = _python(reply[at:]), at + 1
            if value is not None:
                yield value
                return  # it was read up to the reply's last brace
        else:
            yield value
        at = reply.find("{", end)


def _python(text: str) -> Any:
    """A Python dictionary that begins with the text and ends with its last brace, None where there is none."""
    literal = " ".join(text[: text.rfind("}") + 1].splitlines())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that Python does not know is a SyntaxWarning
            return ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _attack(value: Any) -> Attack | None:
    if not isinstance(value, dict):
        return None
    prompt, improvement = value.get("prompt"), value.get("improvement")
    if not isinstance(prompt, str) or not isinstance(improvement, str) or not prompt.strip():
        return None
    # JSON can spell half of a surrogate pair, which no request can carry.
    if any("\ud800" <= character <= "\udfff" for character in prompt + improvement):
        return None
    return Attack(prompt.strip(), improvement.strip())
