"""The command that the user typed, for messages that say how to go on. Reads `sys.argv`; writes nothing."""

import re
import shlex
import sys
from pathlib import Path

from pipelines.errors import without_secrets

NAME = "saferthoughts"


def typed_command() -> str:
    """The command line of this process, quoted for a shell and on one line, so that it can be pasted to go on.

    Secrets are cut out: values of environment variables that hold keys, and whatever looks like a provider's key. A
    process that was not started by the front door (a benchmark, a script) is named by its script.
    """
    script, *arguments = sys.argv or [NAME]
    front_door = Path(script).stem == NAME
    return shlex.join([*([NAME] if front_door else ["python", script]), *map(_cut, arguments)])


def _cut(argument: str) -> str:
    argument = _KEY.sub("(a key)", without_secrets(argument))
    return _CONTROL.sub(" ", argument)


# The prefixes of the keys of OpenAI and many others, the Hub, Groq, xAI, Google, GitHub, AWS; and a URL's password.
_KEY = re.compile(
    r"\b(?:sk|hf|gsk|xai|nvapi|pplx|r8|ghp|key)[-_][A-Za-z0-9_-]{12,}|\bAIza[A-Za-z0-9_-]{20,}|\bAKIA[A-Z0-9]{12,}"
    r"|(?<=://)[^/@\s]+(?=@)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
