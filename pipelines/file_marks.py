"""Whether files have changed: their marks, and values that are made of files and kept while those are as they were.

Reads nothing of a file but what the file system says of it.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
Mark = tuple[tuple[int, int, int] | None, ...]


def mark_of(*paths: Path | str) -> Mark:
    """What changes when one of some files does: of each its inode, size and time, or None where it is not there."""
    return tuple(_mark(path) for path in paths)


def folder_mark(folder: Path) -> Mark:
    """The same for a folder and everything in it, or for a file."""
    return mark_of(folder, *sorted(folder.rglob("*")))


def _mark(path: Path | str) -> tuple[int, int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


class KeptWhileUnchanged(Generic[Value]):
    """Values by their keys, each kept until its mark changes; the `most` that were asked for last, or all.

    A mark is taken before a value is made and again after it. Where it differs, the value may be of either state: it is
    returned and not kept, so that the next one who asks has it made anew. Any thread may ask.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[object, Value]] = OrderedDict()
        self._guard = Lock()

    def get(self, key: Hashable, mark: Callable[[], object], make: Callable[[], Value]) -> Value:
        """The value of a key."""
        before = mark()
        with self._guard:
            found = self._kept.get(key)
            if found is not None and found[0] == before:
                self._kept.move_to_end(key)
                return found[1]
        made = make()
        if mark() == before:
            with self._guard:
                self._kept[key] = before, made
                self._kept.move_to_end(key)
                while self._most is not None and len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return made

    def forget(self, gone: Callable[[Any], bool]) -> None:
        """Drop the values of the keys that a condition holds of."""
        with self._guard:
            for key in [key for key in self._kept if gone(key)]:
                del self._kept[key]
