"""Importing Distilabel without its side effects: it warns about code that is not ours to mend, and sets a traceback
handler that prints local variables, keys among them. Reads and writes nothing."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def muted_imports() -> Iterator[None]:
    """Import distilabel inside the block.

    A class of ours that has one of Distilabel's for its base repeats pydantic's warning on the base's fields, so that
    one stays silenced.
    """
    warnings.filterwarnings("ignore", "The 'default' attribute with value None was provided to", UserWarning)
    kept = sys.excepthook
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            sys.excepthook = kept
