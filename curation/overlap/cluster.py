"""Near-duplicates and overlaps computed by the workers of a Ray cluster: the same rows as on one machine, in its order.

Reads texts as they come from the run, a piece at a time; writes nothing. Each worker computes signatures or overlaps of
a piece. Ray keeps what is between (and spills it to disk where memory is short): of the signatures only those that
share a band with another come back. Run it with `--engine ray` of `duplicates` and `contamination`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.overlap.signatures import Signed, chosen, joined, keys_of, shared, sign
from pipelines.errors import UserError
from pipelines.runner.options import Engine

# Pieces that are on their way for each worker: what is computed, and what waits.
_AHEAD = 2
# Bands are compared in so many parts, each by one worker.
_PARTS = 5
_NEEDS = ("curation.overlap.signatures", "curation.overlap.contamination")


class Workers:
    """The nodes of a cluster that compute; made by `workers`."""

    def __init__(self, nodes: tuple[str, ...]) -> None:
        self._nodes = nodes
        self._sent = 0

    def candidates(self, texts: Iterable[pa.Array], shingle: int) -> Signed:
        """As `signatures.candidates`.

        Raises:
            UserError: a worker failed.
        """
        signed, keys = [], []
        with _named():
            for one, *bands in self._spread(_signed, ((n, t, shingle) for n, t in _numbered(texts)), 1 + _PARTS):
                signed.append(one)
                keys.append(bands)
            if not signed:
                return joined([])
            masks = [self._send(_shared, own, len(signed)) for own in zip(*keys, strict=True)]
            return joined(
                self._taken(chosen, ((one, *(mask[number] for mask in masks)) for number, one in enumerate(signed)))
            )

    def map(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What a function gives for each item, in order.

        Raises:
            UserError: a worker failed.
        """
        with _named():
            yield from self._taken(function, items)

    def _taken(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        import ray

        for (ref,) in self._spread(function, items, 1):
            yield ray.get(ref)

    def _spread(
        self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]], gives: int
    ) -> Iterator[list[Any]]:
        """The references of each item's results, in order, once they are there; few are on their way at a time."""
        import ray

        waiting: list[list[Any]] = []
        for item in items:
            waiting.append(self._send(function, item, gives))
            if len(waiting) >= _AHEAD * len(self._nodes):
                ray.wait(waiting[0][:1])
                yield waiting.pop(0)
        for refs in waiting:
            ray.wait(refs[:1])
            yield refs

    def _send(self, function: Callable[..., Any], item: tuple[Any, ...], gives: int) -> list[Any]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # In turn, and elsewhere where a node is gone.
        node = NodeAffinitySchedulingStrategy(self._nodes[self._sent % len(self._nodes)], soft=True)
        self._sent += 1
        refs = ray.remote(function).options(num_returns=gives, scheduling_strategy=node).remote(*item)
        return refs if isinstance(refs, list) else [refs]


@contextmanager
def workers(engine: Engine, folder: Path) -> Iterator[Workers | None]:
    """The workers of a cluster while the block runs; None for the local engine.

    Raises:
        UserError: there is no such cluster, or none of its nodes can compute.
    """
    if engine.name == "local":
        yield None
        return
    from pipelines.runner.ray_cluster import connected

    with connected(engine.ray_address, folder, _NEEDS) as nodes:
        yield Workers(nodes.workers)


@contextmanager
def _named() -> Iterator[None]:
    """Errors of workers in one line."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise UserError(f"A worker of the Ray cluster failed: {reason}. Run again, or with --engine local.") from error


def _numbered(texts: Iterable[pa.Array]) -> Iterator[tuple[int, pa.Array]]:
    """Pieces with the number of their first text."""
    first = 0
    for piece in texts:
        yield first, piece
        first += len(piece)


def _signed(first: int, texts: pa.Array, shingle: int) -> tuple[Any, ...]:
    found = sign(first, texts, shingle)
    keys = keys_of(found.signatures)
    return found, *(part.copy() for part in np.hsplit(keys, _PARTS))


def _shared(*keys: Any) -> Any:
    masks = shared(keys)
    return masks if len(masks) > 1 else masks[0]
