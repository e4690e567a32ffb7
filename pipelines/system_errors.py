"""Errors of the system under us, disks, files, limits and their rights, each as one line: which path, what, what next.

Python tells them by errno; DuckDB, SQLite, safetensors, torch and datasets by words alone. Used by
`pipelines.errors.refusal_of`.
"""

import errno
import os
import re
import sqlite3
from pathlib import Path

_AGAIN = "then run the same command again: what was finished is kept, and nothing is half-written"
_PLACE = "Choose another folder with --runs or --output"

# What happened, and what to do. The path is put in front.
_LINES = {
    errno.ENOSPC: ("the disk is full", f"Free some space, {_AGAIN}."),
    errno.EDQUOT: ("the disk quota is used up", f"Free some space, {_AGAIN}."),
    errno.EFBIG: ("the file would be larger than is allowed here", f"Raise the limit (ulimit -f), {_AGAIN}."),
    errno.EROFS: ("this file system is read-only", f"{_PLACE}, or make it writable."),
    errno.EACCES: ("no permission", f"{_PLACE}, or change its owner or mode."),
    errno.EPERM: ("no permission", f"{_PLACE}, or change its owner or mode."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one."),
    errno.EMFILE: ("too many open files", f"Raise the limit (ulimit -n), {_AGAIN}."),
    errno.ENFILE: ("too many open files on this machine", f"End other programs, {_AGAIN}."),
    errno.ENOTDIR: ("a part of this path is a file and not a folder", "Choose another path, or move the file away."),
    errno.EISDIR: ("this is a folder and not a file", "Choose another path, or move the folder away."),
    errno.EEXIST: ("this is there already, and not as a folder", "Choose another path, or move it away."),
    errno.ENOTEMPTY: ("this folder is not empty", "Choose another path, or move it away."),
    errno.ELOOP: ("this is a link that leads back to itself", "Choose another path, or remove the link."),
    errno.ESTALE: ("the file server has lost this file", f"Mount it again, {_AGAIN}."),
    errno.EIO: ("the disk cannot read or write it", f"Look at the disk, {_AGAIN}."),
    errno.ENODEV: ("the disk is gone", f"Mount it again, {_AGAIN}."),
    errno.ENXIO: ("the disk is gone", f"Mount it again, {_AGAIN}."),
    errno.EBUSY: ("another program uses it", f"Wait for that, {_AGAIN}."),
    errno.EINTR: ("the call was interrupted", "Run the same command again."),
    errno.ENOMEM: ("there is not enough memory", f"End other programs, {_AGAIN}."),
    errno.ENOLCK: ("this file system has no locks", f"{_PLACE}, on a disk that has them."),
    errno.ENOENT: ("there is no such file or folder", "Check the path."),
}
# How libraries say it that do not hand the errno on.
_WORDS = {
    "Not enough disk space": errno.ENOSPC,
    **{os.strerror(number): number for number in _LINES},
}
# By SQLite's own names; it never names the file. The only databases are those of a run, and of its page.
_DATABASE = "A database of the run (its ledger.sqlite, or one under .serve)"
_SQLITE = {
    "SQLITE_FULL": f"{_DATABASE} cannot grow: the disk is full. Free some space, {_AGAIN}.",
    "SQLITE_READONLY": f"{_DATABASE} cannot be written: it is read-only. {_PLACE}, or make it writable.",
    "SQLITE_CANTOPEN": f"{_DATABASE} cannot be opened. {_PLACE}, or make its folder writable.",
    "SQLITE_IOERR": (
        f"{_DATABASE} cannot be read or written: the disk is full or broken, or the file may not grow any more "
        f"(ulimit -f). Mend that, {_AGAIN}."
    ),
    "SQLITE_BUSY": f"{_DATABASE} is in use by another process. Wait for it, {_AGAIN}.",
    "SQLITE_LOCKED": f"{_DATABASE} is in use by another process. Wait for it, {_AGAIN}.",
    "SQLITE_CORRUPT": f"{_DATABASE} is broken. Put a copy of it back, or move it away to begin it anew.",
    "SQLITE_NOTADB": f"{_DATABASE} is no database. Put a copy of it back, or move it away to begin it anew.",
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_QUOTED_PATH = re.compile(r"""["'](/?[^"']*/[^"']+)["']""")


def system_line(error: BaseException) -> str | None:
    """One line on an error of the system, None where it is none."""
    if isinstance(error, MemoryError):
        return _line("", errno.ENOMEM)
    number = _number_of(error)
    if number in _LINES:
        return _line(_path_of(error), number)
    if isinstance(error, sqlite3.DatabaseError):
        return next((line for name, line in _SQLITE.items() if (error.sqlite_errorname or "").startswith(name)), None)
    if not isinstance(error, OSError):
        return None
    what = error.strerror or next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    path = _path_of(error)
    return f"{path}: {what}." if path else f"{what.rstrip('.')}. With --debug before the command there is more of it."


def _line(path: str, number: int) -> str:
    what, remedy = _LINES[number]
    if number == errno.ENOENT and path and Path(path).is_symlink():
        what, remedy = f"this is a link to {Path(path).readlink()}, which is not there", "Remove it, or mend it."
    return f"{path}: {what}. {remedy}" if path else f"{what[0].upper()}{what[1:]}. {remedy}"


def _number_of(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and isinstance(number, int):
        return number
    words = str(error)
    found = _OS_ERROR.search(words)
    if found:
        return int(found.group(1) or found.group(2))
    # An OSError without a number may still be about a server's file: only the words of a full disk are telling there.
    return next((number for phrase, number in _WORDS.items() if phrase in words and _informative(number)), None)


def _informative(number: int) -> bool:
    """Whether the words of a library are about the system: "no such file" may as well be about a model's name."""
    return number not in (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EINTR, errno.EBUSY)


def _path_of(error: BaseException) -> str:
    """The path that an error names; of a file that is being written, the file's own, not the temporary's."""
    name = getattr(error, "filename", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if isinstance(name, int) or not name:
        quoted = _QUOTED_PATH.search(str(error))
        return quoted.group(1) if quoted else ""
    return str(name)
