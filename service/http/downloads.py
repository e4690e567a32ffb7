"""A release as one zip file, written while it is sent: nothing is kept in memory or on disk.

Reads runs/RUN/release. Every file is opened before the first byte is sent, so that a release that is built meanwhile,
which takes the folder's place, does not mix with this one.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from pipelines.run_archives import opened, zip_pieces
from service.http.problems import Problem


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
            (path.relative_to(folder).as_posix(), stack.enter_context(opened(path)))
            for path in sorted(plain(folder).rglob("*"))
            if plain(path).is_file()
        ]
        kept = stack.pop_all()
    return zip_pieces(files, name, kept)
