"""The order of rows in training: by seed and epoch alone, so that a resumed training sees the same one.

Transformers draws it from the process's random state, which is another one after a crash.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

# Rows of like length are looked for among so many steps' rows, where there are as many: the more, the less padding.
_STEPS_TOGETHER = 8


class SeededOrder(Sampler[int]):  # type: ignore[misc]
    """Every row once an epoch: in random order, or rows of like length beside each other, so that little is padding."""

    def __init__(self, lengths: Sequence[int], rows_at_once: int, seed: int, grouped: bool) -> None:
        self._lengths = list(lengths)
        self._rows_at_once = rows_at_once
        self._seed = seed
        self._grouped = grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch, also after a resume."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        if not self._grouped:
            return iter(torch.randperm(len(self._lengths), generator=generator).tolist())
        return iter(self._in_groups(generator))

    def _in_groups(self, generator: torch.Generator) -> list[int]:
        """Steps of rows of like length, in random order; the longest row comes first, so that memory shows at once."""
        from transformers import trainer_pt_utils

        grouped: Any = trainer_pt_utils.get_length_grouped_indices
        at_once = self._rows_at_once
        steps = -(-len(self._lengths) // at_once)
        # Transformers' own choice, 50 or a quarter of the steps, groups next to nothing where there are few.
        together = min(50, max(_STEPS_TOGETHER, steps // 4))
        order: list[int] = grouped(self._lengths, at_once, mega_batch_mult=together, generator=generator)
        whole = [order[start : start + at_once] for start in range(0, len(order) - at_once + 1, at_once)]
        first, others = whole[:1], whole[1:]
        shuffled = [others[at] for at in torch.randperm(len(others), generator=generator).tolist()]
        rest = order[len(whole) * at_once :]
        return [row for step in (*first, *shuffled) for row in step] + rest
