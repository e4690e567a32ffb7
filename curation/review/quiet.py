"""Argilla's client without its progress bars and warnings: a command tells what it did in its own words."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No output of the client's own inside the block; errors still raise."""
    from argilla.records import _dataset_records as records

    original = records.tqdm
    records.tqdm = functools.partial(original, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        records.tqdm = original
