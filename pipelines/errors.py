"""The one error that users meet: one clear line, exit code 2, no traceback (the front door prints it)."""

import json
import os
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import quote

from pipelines.system_errors import system_line


class UserError(Exception):
    """Something the user can put right. The message names the thing, the value, the choices and the next step."""

    exit_code = 2


class Incomplete(UserError):
    """A stage did what it could and kept it, but rows are missing. `result` is what the stage would have returned, None
    where it was stopped before it had one."""

    exit_code = 1

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class Interrupted(UserError):
    """A stage was stopped from outside; the message says how to go on."""

    exit_code = 130


def unknown(what: str, value: str, choices: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not one of `choices`, with the nearest one offered where there is one."""
    known = list(choices)
    near = get_close_matches(value, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {what} '{value}'.{hint} Choose from: {', '.join(known) or '(none)'}.")


def refusal_of(error: BaseException) -> str | None:
    """The one line to tell a user where an error is theirs to put right, None where it is a fault of ours.

    An error that was raised because of another is told by that one, a group by its first where all are the user's.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        lines = [refusal_of(one) for one in error.exceptions]
        return lines[0] if None not in lines else None
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"The package '{error.name}' is not installed, and this stage needs it. `saferthoughts doctor` tells which "
            "extra has it."
        )
    return system_line(error) or (refusal_of(error.__cause__) if error.__cause__ else None)


def exit_code_of(error: BaseException) -> int:
    """The exit code of an error that `refusal_of` has a line for."""
    return error.exit_code if isinstance(error, UserError) else UserError.exit_code


def without_secrets(text: str, *keys: str) -> str:
    """A text without secrets: a server may repeat what it was sent.

    Cut out are the values of environment variables that hold keys, and `keys`, the ones in use, whatever they are
    called and however short they are; as they are, and as JSON and URLs spell them.
    """
    for key in sorted(filter(None, keys), key=len, reverse=True):
        for spelling in (key, json.dumps(key)[1:-1], quote(key, safe="")):
            text = text.replace(spelling, "(the key)")
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"({name})")
    return text


def one_line(text: str, longest: int = 300) -> str:
    """The beginning of a text of others: one line, and codes in place of what does not print or turns text around."""
    line = " ".join(text[: 50 * longest].split())
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3].rstrip()}..."


def visible(text: str) -> str:
    """A text of others with what cannot be seen written out, such as [U+202E]: it might turn or hide what is around it.

    Control characters and signs that reorder, join or hide text, halves of surrogate pairs, and signs of private
    alphabets. Line ends and tabs stay. For pages, reports and cards; what comes back can always be encoded.
    """
    text = text.replace("\r\n", "\n")
    for sign in set(text):
        if sign not in "\n\t" and (sign in _BLANK or unicodedata.category(sign) in _UNSEEN):
            text = text.replace(sign, f"[U+{ord(sign):04X}]")
    return text


def visible_value(value: object) -> object:
    """`visible` for the `finalize` of a jinja environment: whatever a template writes passes it, but markup of ours."""
    return visible(value) if type(value) is str else value


# Controls, formats, surrogates, private use, and the two separators that end a line; signs that look like nothing.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_BLANK = "\u034f\u115f\u1160\u3164\uffa0"
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_SHORTEST_SECRET = 8
