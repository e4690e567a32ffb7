"""Texts as vectors: the mean of its tokens' vectors for each sentence. Reads and writes nothing.

The vectors come from a sentence-transformers encoder (`training/local_judge/encoder.py`) and are fixed, so that a
sentence costs a look-up and not a forward pass (Tulkens and van Dongen, "Model2Vec", 2024): thousands of sentences a
second on one core, at the price of word order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.judges.refusals import is_refusal
from pipelines.sentences import Sentence, sentences

Floats = NDArray[np.float32]
# Characters of a text that are looked at; more costs time and changes no mean.
_LONGEST = 200_000


class Seen(NamedTuple):
    """A response as heads see it: a vector a sentence, reasoning first, and one of the whole; `places` are the
    sentences' places in the reasoning and then in the answer, `reasoning` is how many are in the reasoning."""

    sentences: Floats
    row: Floats
    places: tuple[Sentence, ...]
    reasoning: int


@dataclass(frozen=True, slots=True)
class Vectors:
    """A tokenizer of the `tokenizers` library and a vector for each of its tokens, (tokens, dimensions)."""

    tokenizer: Any
    table: Floats

    @property
    def row_size(self) -> int:
        """How many figures a whole response is: five vectors and whether it refuses."""
        return 5 * int(self.table.shape[1]) + 1

    def see(self, responses: Sequence[tuple[str, str]]) -> list[Seen]:
        """Responses, each reasoning and answer, as vectors."""
        texts = [text[:_LONGEST] for pair in responses for text in pair]
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        parts = [self._by_sentence(text, one) for text, one in zip(texts, encoded, strict=True)]
        return [
            self._seen(parts[2 * number], parts[2 * number + 1], answer)
            for number, (_, answer) in enumerate(responses)
        ]  # fmt: skip

    def _by_sentence(self, text: str, encoded: Any) -> tuple[tuple[Sentence, ...], Floats]:
        places = sentences(text)
        found = np.zeros((len(places), self.table.shape[1]), dtype=np.float32)
        if not places or not encoded.ids:
            return places, found
        at = np.searchsorted([place.start for place in places], [start for start, _ in encoded.offsets], "right") - 1
        at = np.maximum(at, 0)
        begins = np.flatnonzero(np.r_[True, np.diff(at) > 0])
        sums = np.add.reduceat(self.table[encoded.ids], begins, axis=0)
        found[at[begins]] = sums / np.diff(np.r_[begins, len(at)])[:, None]
        return places, found

    def _seen(
        self, reasoning: tuple[tuple[Sentence, ...], Floats], answer: tuple[tuple[Sentence, ...], Floats], text: str
    ) -> Seen:
        (places, own), (answer_places, answered) = reasoning, answer
        empty = np.zeros((1, self.table.shape[1]), dtype=np.float32)
        middle, end = (part.mean(axis=0) for part in (own if len(own) else empty, own[-2:] if len(own) else empty))
        refused = np.float32(is_refusal(text))
        # What a reasoning comes to means another thing beside an answer that refuses.
        row = np.concatenate(
            [
                middle,
                end,
                (answered if len(answered) else empty).mean(axis=0),
                refused * middle,
                refused * end,
                [refused],
            ]
        )
        return Seen(np.concatenate([own, answered]), row.astype(np.float32), places + answer_places, len(places))
