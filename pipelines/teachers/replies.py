"""What an HTTP answer means: a reply, or a failure of one of a few kinds. The one place that decides.

Reads status, headers and body of an answer; writes nothing. Generation, judges, repair, evaluation, the Batch API and
`teachers test` ask here. docs/replies.md lists every kind of answer with its ending; tests/pipelines/test_replies.py
plays them.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pipelines.errors import one_line, without_secrets
from pipelines.settings.teacher import Price
from pipelines.teachers.completions import BrokenReply, reply_of, texts_in
from pipelines.teachers.reply import Reply
from pipelines.teachers.waits import asked_wait

# retry: another attempt may do better. rate: every request to this teacher waits. row: this input is refused for good.
# too_long: it does not fit the model. malformed: the request is refused as wrong, which may be one prompt's fault or
# that of the settings. suspect: refused, and every other request too unless one has succeeded. fatal: every other too.
Kind = Literal["retry", "rate", "row", "too_long", "malformed", "suspect", "fatal"]

_PASSING = (408, 409, 425)
_FATAL = (401, 402, 407)
# 451: unavailable for legal reasons.
_ROW = (413, 414, 431, 451)
_RETRIED_WORDS = 4000
# Seconds: what asks to be left alone for longer is not waited for.
_WORTH_S = 600.0

_FATAL_CODES = re.compile(
    r"insufficient.*(quota|balance|credit|fund)|billing_(hard_limit_reached|not_active)|exceeded_current_quota_error"
    r"|(invalid|incorrect|expired)_api_key|incorrect_api_key_error|(invalid_)?authentication_error|arrearage"
    r"|account_(deactivated|suspended|disabled)|access_terminated|pre_consume_token_quota_failed|freetieronly"
    r"|credit_balance_exhausted|not_enough_(balance|credits?)|budget_exceeded|billing_disabled"
)
_FATAL_WORDS = re.compile(
    r"insufficient (account )?(balance|credits?|funds|quota)|credit balance"
    r"|(out of|not enough|no more|(not|n't) have (any|enough)|used (up )?all .{0,20}) (credits?|balance|funds)"
    r"|\bno credits?\b"
    r"|balance (is )?(insufficient|not enough)|(credits?|free tier|trial) .{0,40}(depleted|exhausted|used up)"
    r"|requires more credits|payment required|billing (hard )?limit|quota .{0,40}(used up|exhausted)|欠费|余额不足"
    r"|额度.{0,4}(用尽|耗尽|不足)|(enable billing|billing to be enabled)|budget has been exceeded|spend(ing)? limit"
    r"|usage limits?\b|key limit exceeded|per[ -]day\b|(daily|monthly) .{0,30}limit"
    r"|(calls|requests|tokens) ?(/|per) ?(day|month)\b"
    r"|account .{0,30}(deactivated|suspended|disabled|overdue|in arrears)"
    r"|(api|access)[ _-]?key .{0,30}(expired|revoked|disabled|deactivated|not valid|invalid)"
    r"|(invalid|expired|incorrect|revoked) (api|access)[ _-]?key"
)
_MODERATED = re.compile(
    r"content[ _-]?(policy|filter|management|moderation)|moderat|flagged|data[ _]?inspection|inappropriate"
    r"|content exists risk|safety (system|policy|filter)|responsible ai|sensitive ?(content|words?|information)"
    r"|prohibited content|_sensitive\b|is sensitive|guardrail"
    r"|violat\w{0,4} .{0,40}(polic|terms|guideline)|敏感|违规"
)
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|(prompt|input|request|messages?) (is |are )?too (long|large)"
    r"|too many tokens|input length|reduce the length|max_model_len|string too long|string_above_max_length"
    r"|tokens?\b.{0,80}(exceed|must be <=)|exceed.{0,60}\btokens"
)
_RATE = re.compile(r"rate[ _-]?limit|too many requests|throttl|\bqps\b")
_SOON = re.compile(r"try(ing)?( again)? (in|after) [\d.]+ ?(m?s\b|sec)")
_NO_MODEL = re.compile(
    r"model[ _]not[ _](found|exist)|no such model|unknown model|not a valid model"
    r"|model .{0,120}(does not exist|not found)"
)


class ReplyFailure(Exception):
    """An answer that is no reply; the message is one line, the server's own words where it gave any."""

    def __init__(self, kind: Kind, message: str, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.status, self.wait_s = kind, status, wait_s


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as it came over the wire: status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ServerError:
    """What an error says: its words, its `code` and `type` in lower case, and the status that it names, if any."""

    words: str
    code: str = ""
    status: int | None = None


def read_answer(answer: HttpAnswer, price: Price | None, latency_s: float, key: str = "") -> Reply:
    """The reply that an answer holds.

    Args:
        answer: Status, headers and body.
        key: The key in use, cut out of every message.

    Raises:
        ReplyFailure: it holds none.
    """
    if not 200 <= answer.status < 300:
        raise failure_of(answer, key)
    document = parsed(answer.body, key)
    return read_document(document, price, latency_s, key, headers=answer.headers)


def read_document(
    document: object,
    price: Price | None,
    latency_s: float,
    key: str = "",
    first_token_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """The reply that a parsed body holds; as `read_answer`."""
    try:
        error = error_in(document)
        if error is not None:
            raise classified(error.status, error, headers or {}, key)
        return reply_of(document, price, latency_s, first_token_s)
    except (BrokenReply, RecursionError) as broken:
        why = "it is nested too deep" if isinstance(broken, RecursionError) else str(broken)
        raise ReplyFailure("retry", f"broken reply: {_line(why, key)}") from broken


def parsed(body: bytes, key: str = "") -> object:
    """A body as JSON. Bytes that are no text are replaced: a model may be cut off within a character.

    Raises:
        ReplyFailure: it is no JSON.
    """
    if not body.strip():
        raise ReplyFailure("retry", f"broken reply: {'blank lines only' if body else 'an empty body'}")
    text = body.decode(json.detect_encoding(body), "replace")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ReplyFailure("retry", "broken reply: it is nested too deep") from error
    except ValueError as error:
        raise ReplyFailure("retry", f"broken reply: not JSON: {_line(_plain(text), key)}") from error


def failure_of(answer: HttpAnswer, key: str = "") -> ReplyFailure:
    """The failure that an answer with a status other than 2xx is."""
    if 300 <= answer.status < 400:
        target = _target(answer.headers.get("location", ""))
        words = f"redirects to {target}, which is not followed: put the final address into base_url"
        return ReplyFailure("suspect", f"HTTP {answer.status}: {_line(words, key)}", answer.status)
    try:
        error = error_in(_document(answer.body), refused=True) or ServerError(_plain(_text(answer.body)))
    except RecursionError:
        error = ServerError("an error that is nested too deep")
    return classified(answer.status, error, answer.headers, key)


def classified(status: int | None, error: ServerError, headers: Mapping[str, str], key: str = "") -> ReplyFailure:
    """The failure that an error is, by its status and what it says; a status of None is an error in a 200."""
    words = _line(error.words, key) or "no words"
    prefix = f"HTTP {status}: " if status is not None else "error in a 200: "
    kind = _kind_of(status, error, headers)
    return ReplyFailure(kind, prefix + words, status, asked_wait(headers) if kind in ("rate", "retry") else None)


def _kind_of(status: int | None, error: ServerError, headers: Mapping[str, str]) -> Kind:
    """First match wins; what a server says counts more than its status, which gateways mix up."""
    words = error.words.lower()[:_RETRIED_WORDS]
    code_and_words = f"{error.code} {words}"
    refusing = status is None or 400 <= status < 500
    # Gemini tells of a minute's limit in the words of a quota, with the seconds to wait. A day is not waited for.
    asked = asked_wait(headers, math.inf)
    waits = (asked is not None and asked <= _WORTH_S) or _SOON.search(words) is not None
    if status in _FATAL or (refusing and _FATAL_CODES.search(error.code) and not waits):
        return "fatal"
    if status == 429 and "request too large" in words:
        return "too_long"
    if status == 429 or (refusing and _RATE.search(code_and_words)):
        return "fatal" if _FATAL_WORDS.search(words) and not waits else "rate"
    if status in _PASSING or (status is not None and status >= 500):
        return "retry"
    if refusing and _FATAL_WORDS.search(words):
        return "fatal"
    if (status in (400, 404) and _NO_MODEL.search(code_and_words)) or _NO_MODEL.search(error.code):
        return "fatal"
    if status in (400, 403, 422, None) and _MODERATED.search(code_and_words):
        return "row"
    if status in _ROW:
        return "row"
    if status in (400, 422, None) and _TOO_LONG.search(code_and_words):
        return "too_long"
    if status in (400, 422):
        return "malformed"
    return "retry" if status is None else "suspect"


def error_in(document: object, refused: bool = False) -> ServerError | None:
    """The error that a document holds, None where it holds none; with `refused` it is known to be one.

    The shapes are those of OpenAI, OpenRouter (an upstream's own words in `metadata.raw`), Gemini (a list), FastAPI and
    vLLM (`detail`, `object: error`), Cloudflare (`errors`), MiniMax (`base_resp`), DashScope (`code`, `message`) and
    Qianfan (`error_code`, `error_msg`).
    """
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, Mapping):
        return None
    choices = document.get("choices")
    if isinstance(choices, list) and choices and not refused:
        choice = choices[0] if isinstance(choices[0], Mapping) else {}
        inner = choice.get("error") or document.get("error")
        text = any(any(texts_in(choice.get(name))) for name in ("message", "delta", "text"))
        return _error(inner) if inner and not text else None
    if document.get("error"):
        return _error(document["error"], document)
    base = document.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code"):
        return ServerError(str(base.get("status_msg") or ""), str(base["status_code"]))
    if isinstance(document.get("errors"), list) and document["errors"]:
        return _error(document["errors"][0])
    if refused or document.get("object") == "error" or "choices" not in document:
        if document.get("detail"):
            return _error(document["detail"])
        if any(document.get(name) for name in ("message", "msg", "error_msg")):
            return _error(document)
    return None


def _error(error: object, outer: Mapping[str, Any] | None = None) -> ServerError:
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, Mapping):
        status = _status((outer or {}).get("code") or (outer or {}).get("status"))
        words = error if isinstance(error, str) else json.dumps(error, default=str)
        return ServerError(words, "" if " " in words else words.lower()[:200], status)
    named = (error.get(name) for name in ("message", "msg", "detail", "error_msg"))
    words = str(next(filter(None, named), None) or json.dumps(error, default=str))
    if isinstance(error.get("loc"), list):
        words = f"{'.'.join(str(part) for part in error['loc'])}: {words}"
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(metadata.get("raw"), str):
        inner = _document(metadata["raw"].encode("utf-8", "replace"))
        found = error_in(inner, refused=True)
        words = f"{words} ({found.words if found else metadata['raw']})"
    names = tuple(error.get(name) for name in ("code", "type", "status", "reason", "error_code"))
    code = " ".join(str(name).lower() for name in names if isinstance(name, str | int) and name)[:200]
    status = next((number for name in names if (number := _status(name)) is not None), None)
    return ServerError(words, code, status)


def _status(value: object) -> int | None:
    """A status that an error names, as a number or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600 else None


def _document(body: bytes) -> object:
    try:
        return json.loads(_text(body))
    except (ValueError, RecursionError):
        return None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _plain(text: str) -> str:
    """A page's words: without tags, scripts and styles."""
    text = text[:20_000]
    if "<" not in text:
        return text
    return re.sub(r"<[^>]*>", " ", re.sub(r"(?is)<(script|style)\b.*?(</\1>|\Z)", " ", text))


def _target(location: str) -> str:
    """Where a redirect leads: scheme and host, never what else an address may hold."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "an address that cannot be read"
    if not host:
        return "another path of the same server" if location else "nowhere"
    return f"{parts.scheme or 'http'}://{host}{f':{port}' if port else ''}"


def _line(text: str, key: str) -> str:
    """A server's words: one line, without keys."""
    return one_line(without_secrets(text[:20_000], key))


def lowered(headers: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Headers with their names in lower case; of a name that comes twice the first."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.lower(), value)
    return found
