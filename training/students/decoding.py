"""A student's tokens as text: without its special tokens, but with the marks around its reasoning.

Some tokenizers have `<think>` and `</think>` as special tokens, which decoding usually drops: the reasoning would then
become part of the answer. Reads and writes nothing. Used by `eval/models/hf_local.py`, `chat_models.py` here
and `train --check`.
"""

import re
from collections.abc import Iterable
from typing import Any

from pipelines.reasoning_families import HARMONY_TOKENS, TAGS

# The marks of the families in use: <think>, [THINK], harmony's channels and their like.
_MARK = re.compile(
    r"</?\s*(?:think(?:ing)?|thought|reason(?:ing)?|answer|seed:think)\s*>|\[/?THINK\]|\u25c1/?think\u25b7"
    r"|<\|(?:begin|end)_of_(?:thought|solution)\|>|<\|(?:channel|message|start|constrain)\|>|<\|/?think\|>",
    re.IGNORECASE,
)


def _marks_reasoning(token: str) -> bool:
    """Whether a token is a mark, or the beginning of one such as `<|channel>thought`."""
    families = (tag for tag in TAGS if tag not in HARMONY_TOKENS)
    return _MARK.fullmatch(token) is not None or (len(token) > 3 and any(tag.startswith(token) for tag in families))


class ReplyDecoder:
    """Decodes what a model wrote. `marks`: special tokens that are kept, since they mark reasoning."""

    def __init__(self, tokenizer: Any) -> None:
        special = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        self.marks = tuple(sorted(text for text in special.values() if _marks_reasoning(text)))
        self._dropped = {number for number, text in special.items() if text not in self.marks}
        self._tokenizer = tokenizer

    def decode(self, tokens: Iterable[int], **_: Any) -> str:
        """The text of tokens. Further arguments are a tokenizer's, in whose place transformers' streamer calls this."""
        kept = [number for number in map(int, tokens) if number not in self._dropped]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def described(self) -> str:
        """One line on how this student's reasoning is separated from its answer."""
        if not self.marks:
            return "reasoning is marked by ordinary text, which every server keeps"
        return (
            f"reasoning is marked by special tokens ({' '.join(self.marks)}): eval and chat keep them; a server drops "
            "them unless it parses reasoning itself or is asked with skip_special_tokens: false"
        )
