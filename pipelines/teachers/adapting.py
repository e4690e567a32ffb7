"""What a server does not take of a request, read from its refusal, and the entry of a teacher without it.

Reads and writes nothing. A refusal that names a field or a limit is turned into a changed entry and a line about it;
anything else is left to whoever asked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.settings.teacher import Teacher

# Below it, an answer of a model that reasons is always cut.
LEAST_ANSWER = 256
_NUMBER = r"[`'\"]?(\d[\d,_]*)"
# Most tokens of prompt and answer together, as vLLM, OpenAI, llama.cpp, Mistral and TGI tell it.
_WINDOW = re.compile(
    rf"(?:maximum )?context (?:length|window|size)[^.\d]{{0,40}}?(?: is| of|:|=|\()\s*(?:only )?{_NUMBER}"
    rf"|max_model_len[^\d]{{0,20}}{_NUMBER}|n_ctx[^\d]{{0,6}}{_NUMBER}"
    rf"|must be <= {_NUMBER}\. given: \d+ `?inputs`? tokens",
    re.IGNORECASE,
)
# Most tokens of an answer, as OpenAI, DeepSeek, DashScope, Volcano, Anthropic, Groq and Google tell it.
_OUTPUT = re.compile(
    rf"(?:supports |allows )?at most {_NUMBER} (?:completion|output) tokens"
    rf"|range of max_?(?:completion_)?tokens (?:is|should be) \[\d+, ?{_NUMBER}\]|expected a value <= {_NUMBER}"
    rf"|\d[\d,]* > {_NUMBER}, which is the maximum"
    rf"|max_(?:completion_)?tokens`?'? (?:must be|should be)[^\d]{{0,40}}{_NUMBER}"
    rf"|max(?:imum)?_?(?: output)? tokens[^\d]{{0,40}}(?:exclusive\) and |to ){_NUMBER}",
    re.IGNORECASE,
)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra (?:inputs|fields)|not permitted|not allowed"
    r"|only the default|deprecated|cannot both|cannot be used together|is allowed for this model|not available"
    r"|incompatible|no longer",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Adapted:
    """An entry without what the server refused, and the line that says so."""

    teacher: Teacher
    word: str


def adapted_to(teacher: Teacher, refusal: str, prompt_tokens: int) -> Adapted | None:
    """The entry as the server would take it, None where its refusal names nothing that can be changed.

    Args:
        teacher: The entry that was refused.
        refusal: The server's words.
        prompt_tokens: What a prompt takes, kept free of the answer in a window.
    """
    limit = teacher.sampling.max_tokens
    refused = _NOT_TAKEN.search(refusal) is not None
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[teacher.limit_field]
    names = set(re.findall(r"[a-z]+(?:_[a-z]+)*", refusal.lower()))
    renamed = other in names or teacher.limit_field == "max_completion_tokens"
    if limit is not None and refused and teacher.limit_field in names and renamed:
        return Adapted(teacher.model_copy(update={"limit_field": other}), f"it calls max_tokens {other}")
    for name in ("top_p", "temperature", "seed"):
        value = getattr(teacher.sampling, name)
        if value is not None and refused and name in names:
            return _without(teacher, name, value)
    if (window := _found(_WINDOW, refusal)) is not None:
        return fitted(teacher, window, None, prompt_tokens)
    if (most := _found(_OUTPUT, refusal)) is not None:
        return fitted(teacher, None, most, prompt_tokens)
    return None


def fitted(teacher: Teacher, window: int | None, most: int | None, prompt_tokens: int) -> Adapted | None:
    """The entry with `max_tokens` lowered to what fits; None where it does, or where hardly anything would be left.

    Args:
        teacher: An entry.
        window: Most tokens of prompt and answer together.
        most: Most tokens of an answer.
        prompt_tokens: What the longest prompt takes. More than a quarter of the window is not kept free: one long
            prompt is not to cut every other's answer.
    """
    limit = teacher.sampling.max_tokens
    if limit is None:
        return None
    fits, why = limit, ""
    if window is not None and window - min(prompt_tokens, window // 4) < fits:
        fits, why = window - min(prompt_tokens, window // 4), f"its window is {window} tokens, prompt and answer"
    if most is not None and most < fits:
        fits, why = most, f"it gives at most {most} tokens of an answer"
    if not why or fits < LEAST_ANSWER:
        return None
    sampling = teacher.sampling.model_copy(update={"max_tokens": fits})
    word = f"max_tokens is {fits} in place of {limit}, since {why}"
    return Adapted(teacher.model_copy(update={"sampling": sampling}), word)


def _without(teacher: Teacher, name: str, value: Any) -> Adapted:
    sampling = teacher.sampling.model_copy(update={name: None})
    return Adapted(
        teacher.model_copy(update={"sampling": sampling}), f"{name} (it was {value:g}) is not sent, since it is refused"
    )


def _found(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    digits: Callable[[str], str] = lambda part: re.sub(r"\D", "", part)  # noqa: E731
    return next((int(digits(part)) for part in match.groups() if part), None) if match else None
