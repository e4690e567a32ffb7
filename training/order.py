"""The order in which rows are trained on: by seed and epoch alone, so that a training that goes on sees the same one.

Transformers draws it from the process's random state, which is another one after a crash.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler


class SeededOrder(Sampler[int]):
    """Every row once an epoch: in random order, or rows of like length beside each other, so that little is padding."""

    def __init__(self, lengths: Sequence[int], rows_at_once: int, seed: int, grouped: bool) -> None:
        self._lengths = list(lengths)
        self._rows_at_once = rows_at_once
        self._seed = seed
        self._grouped = grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch, also by one that goes on."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        from transformers import trainer_pt_utils

        grouped: Any = trainer_pt_utils.get_length_grouped_indices
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        if self._grouped:
            order: list[int] = grouped(self._lengths, self._rows_at_once, generator=generator)
            return iter(order)
        return iter(torch.randperm(len(self._lengths), generator=generator).tolist())
