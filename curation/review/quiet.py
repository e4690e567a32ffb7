"""Argilla's client without its progress bars and warnings, and with its failures as one line."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.errors import UserError


@contextmanager
def quiet() -> Iterator[None]:
    """No output of the client's own inside the block.

    Raises:
        UserError: the server could not be reached, or refused something.
    """
    import httpx
    from argilla._exceptions import ArgillaError
    from argilla.records import _dataset_records as records

    original = records.tqdm
    records.tqdm = functools.partial(original, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (httpx.HTTPError, ArgillaError) as error:
        message = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"The Argilla server failed at this: {message}. What was sent is kept; run the same command again."
        ) from error
    finally:
        records.tqdm = original
