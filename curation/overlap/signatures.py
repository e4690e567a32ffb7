"""MinHash signatures of texts, and which rows share a band of one with another: what near-duplicates are found among.

Reads and writes nothing. Texts come in pieces and each piece is computed by itself, so that a cluster's workers can
(`cluster.py`); they need this module, numpy, pyarrow and rensa.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rensa import RMinHash

from curation.overlap.windows import windows

BANDS, _ROWS = 25, 5
_SEED = 42

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class Signed(NamedTuple):
    """Rows that have words, and their signatures, (rows, permutations)."""

    rows: npt.NDArray[np.int64]
    signatures: npt.NDArray[np.uint32]


def sign(first: int, texts: pa.Array, shingle: int) -> Signed:
    """The signatures of a piece, whose first text is row `first` of all."""
    rows = [np.zeros(0, np.int64)]
    signatures = [np.zeros((0, BANDS * _ROWS), np.uint32)]
    for piece in windows(texts, shingle):
        present, starts = np.unique(piece.rows, return_index=True)
        if len(present):
            offsets = np.append(starts, len(piece.rows)).astype(np.uint64)
            digests = RMinHash.digest_matrix_from_flat_token_hashes(piece.hashes, offsets, BANDS * _ROWS, _SEED)
            rows.append(present + first)
            signatures.append(np.array(digests.to_rows(), np.uint32))
    return Signed(np.concatenate(rows), np.concatenate(signatures))


def keys_of(signatures: npt.NDArray[np.uint32]) -> Keys:
    """One number for each band of each signature, (rows, bands); equal bands have equal numbers."""
    bands = signatures.reshape(len(signatures), BANDS, _ROWS).astype(np.uint64)
    keys = bands[:, :, 0]
    for column in range(1, _ROWS):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + bands[:, :, column]
    return keys


def shared(keys: Sequence[Keys]) -> list[Mask]:
    """Which rows, piece by piece, share a band with another of any piece; `keys` are (rows, some bands) each."""
    every = np.concatenate(keys)
    found = np.zeros(len(every), bool)
    for band in every.T:
        _, places, counts = np.unique(band, return_inverse=True, return_counts=True)
        found |= counts[places] > 1
    return np.split(found, np.cumsum([len(piece) for piece in keys])[:-1])


def chosen(signed: Signed, *masks: Mask) -> Signed:
    """The rows of a piece that one of the masks marks."""
    near = np.any(np.stack(masks), axis=0)
    return Signed(signed.rows[near], signed.signatures[near])


def joined(pieces: Iterable[Signed]) -> Signed:
    """Pieces as one, in their order."""
    found = [Signed(np.zeros(0, np.int64), np.zeros((0, BANDS * _ROWS), np.uint32)), *pieces]
    return Signed(np.concatenate([one.rows for one in found]), np.concatenate([one.signatures for one in found]))


def candidates(texts: Iterable[pa.Array], shingle: int) -> Signed:
    """Of all texts, in their order, the rows that share a band with another."""
    pieces, first = [], 0
    for piece in texts:
        pieces.append(sign(first, piece, shingle))
        first += len(piece)
    signed = joined(pieces)
    return chosen(signed, *shared([keys_of(signed.signatures)]))
