"""What markdown makes of a card, but for its words."""

from markdown_it import MarkdownIt


def shape(card: str) -> list[tuple[str, str]]:
    """The blocks and inline parts of a card's body as markdown reads it, but for its plain text."""
    found = MarkdownIt("gfm-like", {"linkify": False}).parse(card.partition("\n---\n")[2])
    inner = [part for token in found for part in (token, *(token.children or ()))]
    return [(token.type, token.tag) for token in inner if token.type not in ("text", "text_special", "inline")]
