"""The rows that a checkpoint decodes together on the CPU: their caches, and one step of all of them.

Reads and writes nothing. Used by `eval/models/hf_local.py`, a token of every row at a time:

    batch = batch_of(model, pad)
    logits = batch.admit([[1, 5, 9], [1, 5]])     # rows x vocabulary: the next token of each new row
    logits = batch.step([7, 3])                   # the last token of every row, in order
    rows = batch.keep([1])                        # the others leave; the order of those that stay

`Slots` takes new rows at any time, so that a row that ends makes room for the next request: continuous batching, as
vLLM has it. It keeps keys and values where they are instead of copying them at every token, and computes the beginning
that prompts share (a chat template's system message) once. `Padded` works with every architecture, and takes new rows
only when it is empty. transformers' own continuous batching gives the same tokens, but compares every token of a step
with the cache of every row: on a CPU 16 rows took 20 times as long.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

# Families whose attention takes a mask of four dimensions as it is given.
_SLOTTED = ("llama", "mistral", "qwen2", "qwen3")
# Tokens that a cache grows by at least, and the shortest beginning that is worth keeping.
_GROWTH = 128
_SHARED = 16


class Padded:
    """Rows padded on the left to one width. `pad` is any token: what it stands for is masked."""

    # Whether rows may be admitted while others are under way.
    refills = False

    def __init__(self, model: Any, pad: int) -> None:
        self._model, self._pad = model, pad
        self._cache: Any = None
        self._mask: Any = None
        self._positions: Any = None

    def admit(self, prompts: Sequence[list[int]]) -> Any:
        """Read new rows; the logits of the token after each, rows x vocabulary."""
        self._cache = DynamicCache(config=self._model.config)
        logits, self._mask = self._read(prompts, self._cache, 0)
        self._positions = self._mask.sum(-1, keepdim=True) - 1
        return logits

    def step(self, tokens: Sequence[int]) -> Any:
        """Append a token to each row; the logits of the token after it, rows x vocabulary."""
        self._positions = self._positions + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._forward(torch.tensor(tokens)[:, None], self._mask, self._positions, self._cache)

    def keep(self, going: list[int]) -> list[int]:
        """Let go of all rows but these, given in ascending order; returns them in the order that holds from now on."""
        kept = torch.tensor(going, dtype=torch.long)
        self._cache.batch_select_indices(kept)
        self._mask, self._positions = self._mask[kept], self._positions[kept]
        return going

    def _read(self, prompts: Sequence[list[int]], cache: Any, known: int) -> tuple[Any, Any]:
        """The logits after each prompt, and the mask of what `cache` then holds: `known` tokens were in it before."""
        width = max(map(len, prompts)) - known
        gaps = [width + known - len(prompt) for prompt in prompts]
        ids = torch.tensor([[self._pad] * gap + prompt[known:] for gap, prompt in zip(gaps, prompts, strict=True)])
        mask = torch.tensor([[1] * known + [0] * gap + [1] * (width - gap) for gap in gaps])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]
        return self._forward(ids, mask, positions, cache), mask

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


class Slots(Padded):
    """Rows that come and go: each has a slot of the cache, which begins with the row's first token."""

    refills = True

    def __init__(self, model: Any, pad: int) -> None:
        super().__init__(model, pad)
        self._lengths = torch.zeros(0, dtype=torch.long)
        self._layers = [_SlotLayer() for _ in DynamicCache(config=model.config).layers]
        self._cache = Cache(layers=list(self._layers))
        self._shared: list[int] = []
        self._shared_cache: Any = None

    def admit(self, prompts: Sequence[list[int]]) -> Any:
        """Read new rows, which come after those under way."""
        known = self._known(prompts)
        cache = DynamicCache(config=self._model.config)
        for layer, shared in zip(cache.layers, self._shared_cache.layers if known else (), strict=bool(known)):
            layer.update(*(part.expand(len(prompts), -1, -1, -1) for part in (shared.keys, shared.values)))
        logits, mask = self._read(prompts, cache, known)
        first = len(self._lengths)
        self._lengths = torch.cat([self._lengths, mask.sum(-1)])
        width = int(self._lengths.max())
        held = [row.nonzero()[:, 0] for row in mask]
        for layer, read in zip(self._layers, cache.layers, strict=True):
            layer.grow(len(self._lengths), width, read.keys)
            for row, where in enumerate(held):
                layer.keys[first + row, :, : len(where)] = read.keys[row, :, where]
                layer.values[first + row, :, : len(where)] = read.values[row, :, where]
        return logits

    def step(self, tokens: Sequence[int]) -> Any:
        """Append a token to each row."""
        width = int(self._lengths.max()) + 1
        for layer in self._layers:
            layer.grow(len(tokens), width, layer.keys)
            layer.rows, layer.lengths, layer.width = len(tokens), self._lengths, width
        mask = (torch.arange(width) <= self._lengths[:, None])[:, None, None]
        positions = self._lengths[:, None]
        logits = self._forward(torch.tensor(tokens)[:, None], mask, positions, self._cache)
        self._lengths = self._lengths + 1
        return logits

    def keep(self, going: list[int]) -> list[int]:
        """Let go of rows; the last ones move into the slots of those that left."""
        order = list(range(len(going)))
        holes = sorted(set(order) - set(going))
        for hole, mover in zip(holes, going[len(going) - len(holes) :], strict=True):
            length = int(self._lengths[mover])
            for layer in self._layers:
                layer.keys[hole, :, :length] = layer.keys[mover, :, :length]
                layer.values[hole, :, :length] = layer.values[mover, :, :length]
            order[hole] = mover
        self._lengths = self._lengths[torch.tensor(order, dtype=torch.long)]
        return order

    def _known(self, prompts: Sequence[list[int]]) -> int:
        """How many first tokens of these prompts are in `_shared_cache`, computing them where it pays."""
        begun = len(self._shared)
        if begun and all(prompt[:begun] == self._shared and len(prompt) > begun for prompt in prompts):
            return begun
        # One token of each must be left to read.
        first, last = min(prompts)[:-1], max(prompts)[:-1]
        shared = [token for token, _ in takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))]
        if len(prompts) < 2 or len(shared) < _SHARED:
            return 0
        self._shared, self._shared_cache = shared, DynamicCache(config=self._model.config)
        self._read([shared], self._shared_cache, 0)
        return len(shared)


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, slots x heads x room x dimensions; a slot's first `lengths[slot]` are a row's."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = False
        self.keys: Any = None
        self.values: Any = None
        self.lengths: Any = None
        self.rows = self.width = 0

    def grow(self, slots: int, width: int, like: Any) -> None:
        """Make room for so many slots of so many tokens."""
        held = self.keys.shape if self.is_initialized else (0, 0, 0)
        if slots <= held[0] and width <= held[2]:
            return
        room = width + max(_GROWTH, width // 4) if width > held[2] else held[2]
        shape = (max(slots, held[0]), like.shape[1], room, like.shape[3])
        for name in ("keys", "values"):
            # Zeros, since what is masked is multiplied all the same, and rubbish may be no number.
            part = like.new_zeros(shape)
            if self.is_initialized:
                part[: held[0], :, : held[2]] = getattr(self, name)
            setattr(self, name, part)
        self.is_initialized = True

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Put one token of each row into its slot, and give what the rows attend to."""
        at = torch.arange(self.rows)
        self.keys[at, :, self.lengths] = key_states[:, :, 0]
        self.values[at, :, self.lengths] = value_states[:, :, 0]
        return self.keys[: self.rows, :, : self.width], self.values[: self.rows, :, : self.width]


def batch_of(model: Any, pad: int) -> Padded:
    """The rows of a model: in slots where its architecture is known to work so, else padded."""
    layers = DynamicCache(config=model.config).layers
    slotted = model.config.model_type in _SLOTTED and all(type(layer) is DynamicLayer for layer in layers)
    return Slots(model, pad) if slotted and model.config._attn_implementation == "sdpa" else Padded(model, pad)
