"""Reasoning too long for one request, as overlapping pieces that together show every character."""


def windows(text: str, size: int, overlap: int) -> list[str]:
    """Pieces of at most `size` characters; each shows the last `overlap` characters of the one before again.

    A text that fits, the empty one among them, is one piece. Cuts are made at white space where there is any in the
    second half of the overlap, so that words stay whole.
    """
    pieces = []
    start = 0
    while len(text) - start > size:
        end = start + size
        space = text.rfind(" ", end - max(overlap // 2, 1), end)
        end = space if space > start else end
        pieces.append(text[start:end])
        start = max(end - overlap, start + 1)
    return [*pieces, text[start:]]
