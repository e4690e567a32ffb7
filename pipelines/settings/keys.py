"""Keys to paid services: how one is recognised where a name or a setting belongs, and kept out of messages.

Reads and writes nothing. Keys stand in environment variables; a configuration holds only the variables' names.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HIDDEN = "(not shown)"
# How keys of the common services begin.
_PREFIX = re.compile(
    r"(?:sk|pk|rk|csk|xai|pplx|nvapi|glpat)-\S{6}|(?:hf|gsk|fw|r8|sk|pk|gh[pousr]|tgp_v1|github_pat|xox[bp])_"
    r"(?:(?=[A-Za-z]*\d)[A-Za-z0-9]{6}|[A-Za-z]{16})|AIza\S{8}|AKIA[A-Z0-9]{8}|eyJ[A-Za-z0-9]{8}"
)
# A long run of letters and digits that no word has. Words of a model's name are shorter or hold fewer digits.
_PIECE = re.compile(r"[A-Za-z0-9+]{20,}")
_SECRET_FIELD = re.compile(
    r"(?i)(?:^|.*[_\-. ])(?:api[_-]?key|apikey|api[_-]?key[_-]?env|authorization|access[_-]?token|auth[_-]?token|secret"
    r"|secret[_-]?key|password|passwd|bearer)|key|auth|token"
)
_LONGEST_SHOWN = 200


def looks_like_key(text: str) -> bool:
    """Whether a text holds what is probably a key: a known beginning, or a long mixture of letters and digits."""
    return begins_like_key(text) or any(_mixed(piece) for piece in _PIECE.findall(text))


def begins_like_key(text: str) -> bool:
    """Whether a word of a text begins as keys of the common services do."""
    words = re.split(r"[\s,;:=/'\"(\[{]+", text)
    return any(_PREFIX.match(word) for word in words) or re.search(r"\bBearer\s+\S", text) is not None


def _mixed(piece: str) -> bool:
    digits = sum(mark.isdigit() for mark in piece)
    lower = any(mark.islower() for mark in piece)
    upper = any(mark.isupper() for mark in piece)
    turns = sum(one.islower() != two.islower() for one, two in itertools.pairwise(piece))
    return (digits >= 3 and (lower or upper)) or (lower and upper and (digits >= 1 or turns >= len(piece) // 3))


def is_secret_field(name: str) -> bool:
    """Whether a field of that name holds a key or a key's variable: `api_key`, `Authorization`, `api_key_env`."""
    return _SECRET_FIELD.fullmatch(name) is not None


def keys_within(value: Any, path: str = "") -> Iterator[str]:
    """The dotted paths in nested mappings and lists where a key stands."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            if isinstance(inner, str) and is_secret_field(str(name)):
                yield where
            else:
                yield from keys_within(inner, where)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from keys_within(inner, f"{path}.{number}" if path else str(number))
    elif isinstance(value, str) and begins_like_key(value):
        yield path


def shown(value: Any, field: str = "") -> str:
    """A value for a message: as Python writes it, but no key, no credentials of an address, and nothing long."""
    text = repr(value)
    secret = is_secret_field(field.rpartition(".")[2]) or next(keys_within(value), None) is not None
    if secret or looks_like_key(text) or _has_credentials(value if isinstance(value, str) else text):
        return HIDDEN
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _has_credentials(text: str) -> bool:
    return re.search(r"//[^/\s]*@|//\S*\?\S", text) is not None


def check_url(url: str) -> None:
    """Refuse an address that no request can go to, or that would put a key into files.

    Raises:
        ValueError: what is wrong with it and what to write; the address itself is not repeated.
    """
    hint = "an address looks like http://127.0.0.1:8000/v1"
    if not url.isprintable() or any(mark.isspace() for mark in url):
        raise ValueError(f"an address holds no spaces or control characters; {hint}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"this is no address ({error}); {hint}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"an address begins with http:// or https://; {hint}")
    if not host:
        raise ValueError(f"the address names no host; {hint}")
    if "@" in parts.netloc:
        raise ValueError("an address holds no user or password; name the variable of a key with api_key_env")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("an address ends before '?' and '#'; a key goes into a variable that api_key_env names")
    for ending in ("/chat/completions", "/completions", "/responses", "/models"):
        if parts.path.rstrip("/").endswith(ending):
            base = url.rstrip("/").removesuffix(ending)
            raise ValueError(f"leave out {ending}, which is added to each request: {base}")


def check_variable(name: str) -> None:
    """Refuse what cannot be the name of an environment variable, or is a key itself.

    Raises:
        ValueError: how to give a key; the value is not repeated.
    """
    if not VARIABLE.fullmatch(name) or looks_like_key(name):
        raise ValueError(
            "this takes the NAME of the environment variable that holds the key, such as DEEPSEEK_API_KEY, and never "
            "the key itself. Set the variable in your shell and give its name"
        )
