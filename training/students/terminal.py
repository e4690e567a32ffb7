"""Text of models and rows made safe for a terminal, which would obey it."""


def harmless(text: str) -> str:
    """The text with control characters, and those that turn its direction, replaced; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
