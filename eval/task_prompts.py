"""The texts that evaluation sends to models beside the questions themselves: eval/prompts/*.md.jinja.

Reads those files; writes nothing. Whatever others wrote goes into them as one JSON string or document, in which no
line, quote or role can be forged.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.templates import template_of

PROMPTS = Path(__file__).parent / "prompts"


@cache
def text(name: str) -> str:
    """A prompt's text as it is in its file, NAME.md.jinja."""
    return (PROMPTS / f"{name}.md.jinja").read_text(encoding="utf-8")


def rendered(name: str, **values: Any) -> str:
    """A prompt with its values in place."""
    return filled(text(name), str(PROMPTS / f"{name}.md.jinja"), **values)


def filled(template: str, where: str, **values: Any) -> str:
    """A template's text with its values in place.

    Raises:
        UserError: it holds more than a template may, or names another value.
    """
    return template_of(template, tuple(values), where, trimmed=True).render(**values).strip()


def hashes(*names: str) -> dict[str, str]:
    """sha256 of each prompt's file, by the file's name, for the results."""
    return {f"{name}.md.jinja": sha256(text(name).encode()).hexdigest() for name in names}
