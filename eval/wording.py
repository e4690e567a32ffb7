"""The texts that evaluation sends to models beside the questions themselves: eval/prompts/*.md.jinja.

Reads those files; writes nothing. Whatever others wrote goes into them as one JSON string or document, in which no
line, quote or role can be forged.
"""

import json
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2

PROMPTS = Path(__file__).parent / "prompts"
_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PROMPTS),
    undefined=jinja2.StrictUndefined,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Jinja's own tojson is for pages: it writes an apostrophe as an escape, which a model would have to read.
_JINJA.filters["quoted"] = partial(json.dumps, ensure_ascii=False)


@cache
def text(name: str) -> str:
    """A prompt's text as it lies in its file, NAME.md.jinja."""
    return (PROMPTS / f"{name}.md.jinja").read_text(encoding="utf-8")


def rendered(name: str, **values: Any) -> str:
    """A prompt with its values in place."""
    return _JINJA.get_template(f"{name}.md.jinja").render(**values).strip()


def hashes(*names: str) -> dict[str, str]:
    """sha256 of each prompt's file, by the file's name, for the results."""
    return {f"{name}.md.jinja": sha256(text(name).encode()).hexdigest() for name in names}
