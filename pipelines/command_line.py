"""The command that the user typed, for messages that say how to go on. Reads `sys.argv`; writes nothing."""

import re
import shlex
import sys
from pathlib import Path

from pipelines.errors import without_secrets

NAME = "saferthoughts"


def typed_command(otherwise: str = "", more: str = "") -> str:
    """The command line of this process, quoted for a shell and on one line, so that it can be pasted to go on.

    Secrets are cut out: values of environment variables that hold keys, and whatever looks like a provider's key.

    Args:
        otherwise: The command where this process was not started by the front door but by a notebook or a script; if
            it is "", the script is named.
        more: Options to add, as "--max-cost 2"; they take the place of those of the same names.
    """
    script, *arguments = sys.argv or [NAME]
    words = [NAME, *arguments]
    if NAME not in (Path(script).stem, Path(script).parent.name):
        words = shlex.split(otherwise) or ["python", script, *arguments]
    added = shlex.split(more)
    for option in (word for word in added if word.startswith("--")):
        for index in [index for index, word in enumerate(words) if word.split("=")[0] == option][::-1]:
            del words[index : index + (1 if "=" in words[index] else 2)]
    return shlex.join(map(_cut, [*words, *added]))


def _cut(argument: str) -> str:
    argument = _KEY.sub("(a key)", without_secrets(argument))
    return _CONTROL.sub(" ", argument)


# The prefixes of the keys of OpenAI and many others, the Hub, Groq, xAI, Google, GitHub, AWS; and a URL's password.
_KEY = re.compile(
    r"\b(?:sk|hf|gsk|xai|nvapi|pplx|r8|ghp|key)[-_][A-Za-z0-9_-]{12,}|\bAIza[A-Za-z0-9_-]{20,}|\bAKIA[A-Z0-9]{12,}"
    r"|(?<=://)[^/@\s]+(?=@)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
