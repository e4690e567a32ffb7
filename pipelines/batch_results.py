"""A finished batch's output and error files, line by line: replies into the ledger, the rest told apart.

Reads the JSONL files that the Batch API leaves; writes the ledger.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import Price
from pipelines.errors import UserError
from pipelines.ledger import Ledger
from pipelines.replies import ReplyFailure, read_document

_RETRIED_STATUS = (408, 409, 429)
# Other lines without a status were cancelled, or ended in a way that nobody has described.
_RETRIED_CODES = ("batch_expired", "request_timeout")
# As in teachers.py: whatever these say of one request holds for every other.
_FATAL_STATUS = (401, 403, 404)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request finally failed; `fatal` where every other would fail the same way."""

    error: str
    fatal: bool = False


@dataclass(slots=True)
class Results:
    """What a batch's lines came to: new answers and their US dollars, and by key what failed or may be asked again."""

    answered: int = 0
    cost: float = 0.0
    failed: dict[str, Failure] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)


def take_in(path: Path, ledger: Ledger, model: str, price: Price | None, latency_s: float, results: Results) -> None:
    """Read an output or error file; a reply that the ledger holds already is not counted again.

    Raises:
        UserError: a line is not JSON.
    """
    with path.open("rb") as file:
        for number, row in enumerate(file, 1):
            try:
                line = json.loads(row)
                key = str(line["custom_id"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"Line {number} of a batch's answers cannot be read ({type(error).__name__}). Run the same command "
                    "again: they are then fetched anew."
                ) from error
            _take_line(key, line, ledger, model, price, latency_s, results)


def _take_line(
    key: str,
    line: Mapping[str, Any],
    ledger: Ledger,
    model: str,
    price: Price | None,
    latency_s: float,
    results: Results,
) -> None:
    response, error = line.get("response") or {}, line.get("error") or {}
    status, body = response.get("status_code"), response.get("body")
    if status is None:
        code = str(error.get("code") or "unknown")
        told = f"{code}: {one_line(error.get('message'))}"
        if code in _RETRIED_CODES:
            results.again[key] = told
        else:
            results.failed[key] = Failure(told)
    elif status != 200:
        told = f"HTTP {status}: {_message(body)}"
        if status in _RETRIED_STATUS or status >= 500:
            results.again[key] = told
        else:
            results.failed[key] = Failure(told, status in _FATAL_STATUS)
    elif not ledger.has(key):
        try:
            reply = read_document(body, price, latency_s)
        except ReplyFailure as failure:
            if failure.kind in ("retry", "rate"):
                results.again[key] = str(failure)
            else:
                results.failed[key] = Failure(str(failure), failure.kind == "fatal")
            return
        ledger.put(key, model, reply)
        results.answered += 1
        results.cost += reply.cost or 0.0


def discounted(price: Price | None, factor: float) -> Price | None:
    """A teacher's prices, times `factor`."""
    if price is None:
        return None
    cached = None if price.cached_input is None else price.cached_input * factor
    return Price(input=price.input * factor, output=price.output * factor, cached_input=cached)


def one_line(text: object) -> str:
    """What a server said, in one line of bounded length."""
    return " ".join(str(text or "").split())[:300]


def _message(body: object) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return one_line(message or json.dumps(body))
