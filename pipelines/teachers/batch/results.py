"""A finished batch's output and error files, line by line: replies into the ledger, the rest told apart.

Reads the JSONL files that the Batch API leaves; writes the ledger.
"""

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import one_line
from pipelines.settings.teacher import Price
from pipelines.teachers.ledger import Answer, Ledger
from pipelines.teachers.replies import HttpAnswer, ReplyFailure, failure_of, read_document
from pipelines.teachers.reply import Reply

# What is longer is no answer: no model writes so much.
_LONGEST_LINE = 64 << 20
# Replies that are written to the ledger in one transaction, which waits for the disk.
_TOGETHER = 500
# Words in the code of a line that was never answered, and may be by another batch. Other lines without a status were
# cancelled, or ended in a way that nobody has described.
_RETRIED_CODES = ("expired", "timeout", "timed_out", "rate_limit", "overloaded", "unavailable", "server_error")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request finally failed; `fatal` where every other would fail the same way, unless one was answered."""

    error: str
    fatal: bool = False


@dataclass(slots=True)
class Results:
    """What a batch's lines came to: new answers and their US dollars, and by key what failed or may be asked again.

    `unread` says why a line could not be read, `foreign` counts answers to requests that are not the batch's.
    """

    answered: int = 0
    cost: float = 0.0
    failed: dict[str, Failure] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    foreign: int = 0

    def odd(self) -> str:
        """What was not taken in, in a line; "" where all was."""
        parts = []
        if self.unread:
            parts.append(f"{len(self.unread)} lines of its answers cannot be read ({self.unread[0]})")
        if self.foreign:
            parts.append(f"{self.foreign} answers are to requests that are not in it")
        return "; ".join(parts)


def take_in(
    path: Path,
    ledger: Ledger,
    model: str,
    price: Price | None,
    latency_s: float,
    keys: Container[str],
    results: Results,
) -> None:
    """Read an output or error file; a reply that the ledger holds already is not counted again.

    A line that cannot be read answers nothing: its request is asked again. The same request's second answer is not
    taken. `keys` are the batch's requests.
    """
    kept: dict[str, Answer] = {}
    for number, row in _lines(path):
        try:
            line = json.loads(row.decode("utf-8-sig"))
            key = str(line["custom_id"])
            answer = _answer(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            results.unread.append(f"line {number}: {one_line(str(error), 120) or type(error).__name__}")
            continue
        if key not in keys:
            results.foreign += 1
        elif key in kept or ledger.has(key):
            continue
        elif (reply := _taken(key, answer, price, latency_s, results)) is not None:
            kept[key] = (key, model, reply)
        if len(kept) >= _TOGETHER:
            ledger.put_all(list(kept.values()))
            kept.clear()
    ledger.put_all(list(kept.values()))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that have words, with their numbers; of one that is too long only its beginning, which is no JSON."""
    number = 0
    with path.open("rb") as file:
        while row := file.readline(_LONGEST_LINE):
            number += 1
            if len(row) == _LONGEST_LINE:
                while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
                row = row[:80]
            if row.strip(b" \t\r\n\xef\xbb\xbf\0"):
                yield number, row


@dataclass(frozen=True, slots=True)
class _Answer:
    """A line, read: the status of its response, None where there was none, with its body; else what went wrong."""

    status: int | None
    body: Any
    code: str
    message: str


def _answer(line: Mapping[str, Any]) -> _Answer:
    """Read a line's envelope.

    Raises:
        ValueError: response, error or status are none.
    """
    response, error = line.get("response"), line.get("error")
    if not isinstance(response, dict | None) or not isinstance(error, dict | str | None):
        raise ValueError("its response or its error is no object")
    details: dict[str, Any] = {"message": error} if isinstance(error, str) else error or {}
    body = (response or {}).get("body")
    if isinstance(body, str):
        # A gateway may hand the body on as the text that it got.
        try:
            body = json.loads(body)
        except ValueError:
            body = {"error": {"message": body}}
    status = _status((response or {}).get("status_code"))
    if status is None and response and isinstance(body, dict) and not details:
        # Where it is left out, the body says what it is.
        status = 200 if "choices" in body else None
        inner = body.get("error")
        details = inner if isinstance(inner, dict) else details
    if status is None and not response:
        status = _status(details.get("code")) or _status(details.get("status"))
        body = {"error": details} if status is not None else body
    return _Answer(
        status,
        body,
        str(details.get("code") or details.get("type") or "unknown"),
        one_line(str(details.get("message") or "")),
    )


def _status(value: object) -> int | None:
    """A status code, also as text or a float; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(float(value))
    except (ValueError, OverflowError):
        return None
    return number if 100 <= number <= 599 else None


def _taken(key: str, answer: _Answer, price: Price | None, latency_s: float, results: Results) -> Reply | None:
    """The reply of a line that has one; what others came to is noted."""
    if answer.status is None:
        details = f"{answer.code}: {answer.message}"
        if any(word in answer.code.lower() for word in _RETRIED_CODES):
            results.again[key] = details
        else:
            results.failed[key] = Failure(details)
        return None
    try:
        if not 200 <= answer.status < 300:
            raise failure_of(HttpAnswer(answer.status, {}, json.dumps(answer.body).encode()))
        reply = read_document(answer.body, price, latency_s)
    except ReplyFailure as failure:
        if failure.kind in ("retry", "rate"):
            results.again[key] = str(failure)
        else:
            results.failed[key] = Failure(str(failure), failure.kind in ("fatal", "suspect"))
        return None
    results.failed.pop(key, None)
    results.answered += 1
    results.cost += reply.cost or 0.0
    return reply


def discounted(price: Price | None, factor: float) -> Price | None:
    """A teacher's prices, times `factor`."""
    if price is None:
        return None
    cached = None if price.cached_input is None else price.cached_input * factor
    return Price(input=price.input * factor, output=price.output * factor, cached_input=cached)
