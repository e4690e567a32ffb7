"""The one error that users meet: one clear line, exit code 2, no traceback (the front door prints it)."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can put right. The message names the thing, the value, the choices and the next step."""


def unknown(what: str, value: str, choices: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not one of `choices`, with the nearest one offered where there is one."""
    known = list(choices)
    near = get_close_matches(value, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {what} '{value}'.{hint} Choose from: {', '.join(known) or '(none)'}.")
