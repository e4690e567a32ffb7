"""A release as one zip file, written while it is sent: nothing is kept in memory or on disk.

Reads runs/RUN/release. Every file is opened before the first byte is sent, so that a release that is built meanwhile,
which takes the folder's place, does not mix with this one.
"""

import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from service.problems import Problem

_PIECE = 256 * 1024
# Zip's earliest: the same release gives the same bytes.
_MOMENT = (1980, 1, 1, 0, 0, 0)


class Sink:
    """A file that can only be written to, and is emptied now and then."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes, /) -> int:
        """Keep a piece until it is taken."""
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing waits here."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def plain(path: Path) -> Path:
    """A path that may be sent as it is: a link could lead to any file of this machine.

    Raises:
        Problem: 409, it is a link.
    """
    if path.is_symlink():
        raise Problem(409, f"{path.parent.name}/{path.name} is a link, and is not followed. Put the file itself there.")
    return path


def zipped(folder: Path, name: str) -> Iterator[bytes]:
    """The pieces of a zip file with a folder of this name in it. Files are opened at the call, and read as it goes on.

    Nothing is compressed: parquet is already.

    Raises:
        Problem: 409, the folder or something in it is a link.
    """
    stack = ExitStack()
    with stack:
        files: list[tuple[str, IO[bytes]]] = [
            (path.relative_to(folder).as_posix(), stack.enter_context(os.fdopen(_no_link(path), "rb")))
            for path in sorted(plain(folder).rglob("*"))
            if plain(path).is_file()
        ]
        kept = stack.pop_all()
    return _pieces(files, name, kept)


def _no_link(path: Path) -> int:
    """An open file; what became a link since it was looked at is an error."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _pieces(files: list[tuple[str, IO[bytes]]], name: str, stack: ExitStack) -> Iterator[bytes]:
    sink: Any = Sink()
    with stack, zipfile.ZipFile(sink, "w") as archive:
        for path, file in files:
            entry = zipfile.ZipInfo(f"{name}/{path}", _MOMENT)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as into:
                while piece := file.read(_PIECE):
                    into.write(piece)
                    yield sink.taken()
        archive.close()
        yield sink.taken()
