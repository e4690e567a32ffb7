"""Files and folders that appear whole or not at all, and whose remains are swept.

Whatever is being written is called `.<name>.<pid>-<random>.tmp` and lies beside its target. Its writer holds a lock on
it (flock), which goes with the process however that ends; so the next writer of the same target can tell the remains of
a killed process, which it removes, from the work of a live one. Every file gets the mode that the umask gives.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SUFFIX = ".tmp"
# What a full disk, a limit or a mount answers to a write, without a path.
ON_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed otherwise."""
    with temporary_beside(path) as temporary:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


def sync_folder(path: Path) -> None:
    """Have a folder's names on the disk: a file that was made or renamed in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems have no such thing.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, removed at the end; those of killed processes go first."""
    with _named_after(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        temporary, held = _owned(path, folder=False)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            os.close(held)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: a fresh one beside `path`, swapped in when the block ends well."""
    with _named_after(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        sweep(path)
        temporary, held = _owned(path, folder=True)
        try:
            yield temporary
            put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(held)


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A folder in the system's place for temporary files, removed at the end; those of killed processes go first."""
    path = Path(tempfile.gettempdir()) / f"saferthoughts-{kind}-{os.getuid()}"
    sweep(path)
    temporary, held = _owned(path, folder=True, mode=0o700)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(held)


def put_in_place(temporary: Path, path: Path) -> None:
    """Make a whole folder take the place of `path`, in one step where the file system can exchange two names.

    Where it cannot, `path` is renamed to `.<name>.old` first; `recover` puts that back after a kill in between.
    """
    if not path.exists():
        temporary.rename(path)
        return
    if _exchanged(temporary, path):
        shutil.rmtree(temporary, ignore_errors=True)
        return
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Undo half of a swap: where `path` is gone and its predecessor is there, the predecessor takes its place again."""
    old = _old(path)
    if old.is_dir() and not path.exists():
        with contextlib.suppress(FileNotFoundError):
            old.rename(path)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left beside it. What a live one holds stays."""
    # Not Path.glob, to which a name with brackets is a pattern.
    prefix = f".{path.name}."
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(prefix) and name.endswith(_SUFFIX)]
    except OSError:
        return
    for name in names:
        left = path.parent / name
        held = None
        try:
            import fcntl

            held = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(left)
        except OSError:
            # Held by a live process, gone, or on a file system without locks: not ours to remove.
            continue
        finally:
            if held is not None:
                os.close(held)
    if path.exists():
        shutil.rmtree(_old(path), ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Add a line of JSON to a file that others look at meanwhile. One that cannot be written is left out: such files
    only show how far something is."""
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def lines_so_far(path: Path, most_bytes: int) -> Iterator[dict[str, Any]]:
    """The whole lines of such a file. It may be written at this moment, or be anybody's: a link is not followed, what
    is larger is not read, and a line that is no JSON object is left out."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or path.stat().st_size > most_bytes:
            return
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line


def file_hash(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_umask(folder: Path) -> None:
    """Give the files of a folder that another library wrote the mode that they would have from us: the umask's."""
    probe = folder / f".mode.{secrets.token_hex(4)}{_SUFFIX}"
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


def _owned(path: Path, folder: bool, mode: int = 0o777) -> tuple[Path, int]:
    """A new temporary of `path`, and a descriptor that holds its lock."""
    import fcntl

    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
        if folder:
            temporary.mkdir(mode)
            held = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks, on which nothing is swept either
            fcntl.flock(held, fcntl.LOCK_EX)
        # Somebody who swept between the two calls has taken it for remains.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(temporary.stat(), os.fstat(held)):
                return temporary, held
        os.close(held)


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step, as Linux can on most file systems; whether that was done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


@contextmanager
def _named_after(path: Path) -> Iterator[None]:
    """Errors of writing name the file that was to be written, not its temporary."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or "")
        if f".{path.name}." in name or (not name and error.errno in ON_WRITING):
            error.filename = str(path)
        raise
