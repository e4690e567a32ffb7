"""How sure a judge is of a verdict: by the probabilities of the tokens that say it, or by asking again.

Reads replies and judgements; writes nothing. `judge RUN --logprobs` asks servers for probabilities, `--repeat N` asks
for each verdict N times through the same ledger. Neither is a probability of being right before people's votes say how
far it can be trusted (`curation/review/confidence.py`).
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.judges.rows import Row, is_flagged
from pipelines.prompts.variant import Message
from pipelines.records import Judgement
from pipelines.runner.asker import Asker
from pipelines.teachers.reply import Reply

# Keeps further answers of one request apart from those after an unread one, which count from 0 as well.
_APART = 2000
# A judge that is greedy would give the same reply again.
_WARM = 0.7
# What says a verdict, by form: a label's bit in JSON, a grade, a word.
_VERDICTS = (
    re.compile(r'"\w+"\s*:\s*"?([01]|full_compliance|partial_refusal|full_refusal)\b'),
    re.compile(r"(?:judge?ment|risk level)\W{0,8}(?:level\s)?([01](?:\.5)?)", re.IGNORECASE),
    re.compile(r"\b(safe|unsafe|yes|no|controversial|[01])\b", re.IGNORECASE),
)


class Again(Asker):
    """An asker for further answers to requests that were asked before, the `turn`-th from 1.

    With `sampled` a judge that is greedy is asked at a temperature; with `change` the messages are other ones.
    """

    def __init__(
        self,
        asker: Asker,
        turn: int = 0,
        sampled: bool = False,
        change: Callable[[Sequence[Message]], Sequence[Message]] | None = None,
    ) -> None:
        self._asker, self._turn, self._sampled, self._change = asker, turn, sampled, change

    async def ask(
        self,
        teacher: str,
        messages: Sequence[Message],
        fields: Mapping[str, Any],
        sample: int,
        optional: bool = False,
        key: str = "",
    ) -> Reply:
        if self._sampled and fields.get("temperature") == 0:
            fields = {**fields, "temperature": _WARM}
        if self._sampled and "seed" in fields:
            fields = {**fields, "seed": fields["seed"] + _APART * self._turn}
        if self._change is not None:
            messages = self._change(messages)
        return await self._asker.ask(teacher, messages, fields, sample + _APART * self._turn, optional)


def certainty(logprobs: str) -> float | None:
    """The probability of the least sure token that says a verdict; None where none does.

    >>> round(certainty('[["un", -0.1], ["safe", -0.2], ["\\\\nS2", -3.0]]') or 0, 3)
    0.741
    """
    try:
        tokens = [(str(token), float(value)) for token, value in json.loads(logprobs)]
    except (ValueError, TypeError, RecursionError):
        return None  # a borrowed ledger may hold anything
    text = "".join(token for token, _ in tokens)
    spans = next((found for form in _VERDICTS if (found := [match.span(1) for match in form.finditer(text)])), [])
    sure = []
    for begin, end in spans:
        at, total = 0, 0.0
        for token, value in tokens:
            total += value if at < end and at + len(token) > begin else 0.0
            at += len(token)
        sure.append(math.exp(total))
    return min(sure, default=None)


def with_repeats(row: Row, first: Sequence[Judgement], again: Sequence[Sequence[Judgement]]) -> list[Judgement]:
    """The first judgements of a row, each with what all of its asks took.

    Its confidence, where tokens gave none, is the share of asks, itself among them, that find fault as it does.
    """
    found = []
    for at, item in enumerate(first):
        others = [turn[at] for turn in again]
        flags = [is_flagged(one, row.kind) for one in (item, *others)]
        read = [flag for flag in flags if flag is not None]
        share = sum(flag == flags[0] for flag in read) / len(read) if others and flags[0] is not None else None
        costs = [one.cost for one in (item, *others) if one.cost is not None]
        found.append(
            replace(
                item,
                confidence=share if item.confidence is None and item.input_tokens else item.confidence,
                requests=sum(one.requests for one in (item, *others)),
                input_tokens=sum(one.input_tokens for one in (item, *others)),
                output_tokens=sum(one.output_tokens for one in (item, *others)),
                cost=sum(costs) if costs else None,
            )
        )
    return found
