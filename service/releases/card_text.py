"""A release's card as HTML, near to what the Hub shows: markdown by markdown-it, with everything of it inert.

Reads README.md of a release folder that `cards/release_folder.py` let through; writes nothing. A card is somebody
else's text: markup in it stays text, pictures are named and not loaded, links lead to web addresses alone and say
nowhere where they were followed from.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from pipelines.errors import one_line, visible

PICTURE = re.compile(r"plots/[a-z_-]{1,40}\.png")
"""The pictures of a card that the page shows: those that releases of this project draw."""
# What is shown of a longer card; ours have about 20 KB.
_LONGEST = 200_000
# The page has h1 and h2 of its own.
_DEEPER = 2
_LAST_HEADING = 6


def card_of(folder: Path, pictures: str = "") -> Markup:
    """The card of a release folder without its front matter; empty where it has none.

    Args:
        folder: The release.
        pictures: Where the pictures in its plots/ are shown from; they are only named if not given.
    """
    path = folder / "README.md"
    if path.is_symlink() or not path.is_file():
        return Markup("")
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_LONGEST + 1)
    cut = len(text) > _LONGEST
    return rendered(without_front_matter(text[:_LONGEST]), pictures) + (
        Markup("<p>[... cut here]</p>") if cut else Markup("")
    )


def without_front_matter(card: str) -> str:
    """A card's text after the block between lines of three dashes that it may begin with."""
    if not card.startswith("---\n"):
        return card
    _, found, rest = card[4:].partition("\n---\n")
    return rest if found else card


def rendered(text: str, pictures: str = "") -> Markup:
    """Markdown as HTML in which nothing runs, and nothing loads but `pictures`."""
    # Markup in it is escaped by the renderer: raw HTML is off.
    return Markup(_markdown().render(visible(text), {"pictures": pictures}))


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable("table")
    for rule in (_heading_open, _heading_close, _table_open, _table_close, _link_open, _image):
        markdown.add_render_rule(rule.__name__.removeprefix("_"), rule)
    return markdown


def _heading(token: Token) -> str:
    return f"h{min(int(token.tag[1]) + _DEEPER, _LAST_HEADING)}"


def _heading_open(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return f"<{_heading(tokens[at])}>"


def _heading_close(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return f"</{_heading(tokens[at])}>\n"


def _table_open(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n'


def _table_close(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return "</table></div>\n"


def _link_open(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    # A link to a file of the release, or to anything but the web, is an anchor that leads nowhere.
    address = str(tokens[at].attrGet("href") or "")
    try:
        leads = urlsplit(address).scheme in ("http", "https")
    except ValueError:
        leads = False
    if not leads:
        return "<a>"
    return str(Markup('<a href="{}" rel="noreferrer noopener nofollow">').format(address))


def _image(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    words, source = tokens[at].content, PICTURE.fullmatch(str(tokens[at].attrGet("src") or ""))
    if source is None or not env["pictures"]:
        return str(Markup("<em>[picture: {}]</em>").format(words))
    return str(Markup('<img src="{}{}" alt="{}" loading="lazy">').format(env["pictures"], source[0], words))


def front_of(folder: Path) -> dict[str, str]:
    """What the Hub shows beside a card, of its front matter: each a line; empty where it cannot be read."""
    from cards.card.validator import front_matter_of

    path = folder / "README.md"
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = front_matter_of(file.read(_LONGEST))
    except ValueError:
        return {}
    shown = {name: found.get(name) for name in ("license", "language", "size_categories", "task_categories", "tags")}
    lines = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in shown.items()}
    return {name.replace("_", " "): one_line(str(value)) for name, value in lines.items() if value}
