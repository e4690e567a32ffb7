"""A run removed, renamed, and as one zip file: written while it is sent, and read back from anywhere.

An archive holds what a run is made of: run.yaml, manifest.json, the ledger, its tables and its release, under the run's
name. Models, evaluations and logs stay. Reading one takes nothing else, and takes it whole or not at all. The command
line (`saferthoughts runs`) and the service use this.
"""

import os
import re
import shutil
import sqlite3
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock, Timeout

from pipelines.errors import UserError, one_line
from pipelines.files import atomic_folder, write_json
from pipelines.runs import RUN_NAME, WRITTEN_BY, RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.teacher import Teacher

_FILES = ("run.yaml", "manifest.json", "ledger.sqlite", *(f"{name}.parquet" for name in WRITTEN_BY))
_RELEASED = re.compile(r"release/([A-Za-z0-9_-][A-Za-z0-9._-]{0,100}/){0,3}[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}")
_PIECE = 256 * 1024
# Zip's earliest: the same files give the same bytes.
_MOMENT = (1980, 1, 1, 0, 0, 0)
_MOST_ENTRIES = 2000
# Bytes of all files of an archive that is read.
MOST_BYTES = 20 * 2**30
_LEDGER_TABLES = "SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')"


@dataclass(frozen=True, slots=True)
class Holding:
    """A file or folder of a run: its name and its bytes."""

    name: str
    size: int


def holdings(run: RunFolder) -> list[Holding]:
    """What a run's folder holds, the largest first; links are not followed."""
    found = [
        Holding(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""), _size(Path(entry.path)))
        for entry in os.scandir(run.path)
        if not entry.name.startswith(".")
    ]
    return sorted(found, key=lambda one: (-one.size, one.name))


def _size(path: Path) -> int:
    paths = [path] if path.is_symlink() or not path.is_dir() else path.rglob("*")
    return sum(one.lstat().st_size for one in paths if stat.S_ISREG(one.lstat().st_mode))


@contextmanager
def _idle(run: RunFolder) -> Iterator[None]:
    """Alone with a run: no stage is at work on it, and none can begin.

    Raises:
        UserError: one is, or the run is a link.
    """
    if run.path.is_symlink():
        raise UserError(f"{run.path} is a link, and is left as it is. Move or remove what it leads to yourself.")
    with ExitStack() as stack:
        for path in sorted({run.path / ".generate.lock", *run.path.glob(".*.lock")}):
            try:
                stack.enter_context(FileLock(path, timeout=0))
            except Timeout as error:
                what = path.name.strip(".").removesuffix(".lock")
                raise UserError(
                    f"Another process is at work on {run.path} ({what}). Wait for it, or stop it first."
                ) from error
        yield


def remove(run: RunFolder) -> None:
    """Delete a run with all that it holds.

    Raises:
        UserError: a process is at work on it, or it is a link.
    """
    with _idle(run):
        # Out of sight at once; a rest that cannot be deleted shows as no run.
        gone = run.path.with_name(f".{run.name}.{os.getpid()}.removed")
        run.path.rename(gone)
    shutil.rmtree(gone)


def rename(run: RunFolder, name: str) -> RunFolder:
    """Give a run another name; its release keeps the name that it was built under.

    Raises:
        UserError: the name is none, or taken, or a process is at work on the run.
    """
    check_name(run.path.parent, name)
    with _idle(run):
        write_json(run.path / "manifest.json", {**run.manifest(), "name": name})
        target = run.path.with_name(name)
        run.path.rename(target)
    return RunFolder.open(target.parent, name)


def check_name(runs: Path, name: str) -> None:
    """Refuse a name that no new run can have.

    Raises:
        UserError: it is no folder's name, or taken.
    """
    if not RUN_NAME.fullmatch(name):
        raise UserError(
            f"Run name '{one_line(name, 80)}' cannot be a folder: use letters, digits, '.', '_' and '-', at most 64, "
            "beginning with a letter or digit."
        )
    if os.path.lexists(runs / name):
        raise UserError(f"There is a run '{name}' under {runs.name}/ already. Choose another name.")


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


def zip_pieces(files: list[tuple[str, IO[bytes]]], name: str, stack: ExitStack) -> Iterator[bytes]:
    """The pieces of a zip file with a folder of this name in it; `stack` closes the files. Nothing is compressed:
    parquet is already."""
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


def opened(path: Path) -> IO[bytes]:
    """An open file; what is a link is an error."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def exported(run: RunFolder) -> Iterator[bytes]:
    """The pieces of a run's archive, of its files as they are at the call.

    Raises:
        UserError: a file of it is a link, or a process is at work on it.
    """
    stack = ExitStack()
    with stack, _idle(run):
        files: list[tuple[str, IO[bytes]]] = []
        for path in sorted(
            path for path in (*run.path.iterdir(), *(run.path / "release").rglob("*")) if path.is_file()
        ):
            name = path.relative_to(run.path).as_posix()
            if name in _FILES or _RELEASED.fullmatch(name):
                if path.is_symlink() or path.parent.is_symlink():
                    raise UserError(f"{path} is a link, and is not followed. Put the file itself there.")
                source = _whole_ledger(path, stack) if name == "ledger.sqlite" else path
                files.append((name, stack.enter_context(opened(source))))
        kept = stack.pop_all()
    return zip_pieces(files, run.name, kept)


def _whole_ledger(path: Path, stack: ExitStack) -> Path:
    """A copy of a ledger with what is in its log as well."""
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def imported(
    runs: Path, archive: IO[bytes], name: str | None, known: dict[str, Teacher], agree: Callable[[str], None]
) -> RunFolder:
    """Make a run of an archive.

    Args:
        archive: A file that can be gone about in.
        name: The run's name; that of the archive if None.
        known: Teachers of this machine: whoever asks others than these has to be agreed to.
        agree: Is given what the run would ask, run or read that is not known here; raises where that is not wanted.

    Raises:
        UserError: this is no archive of a run, it holds what none does, a table is broken, or its name is taken.
    """
    try:
        with zipfile.ZipFile(archive) as opened_archive:
            entries = _entries(opened_archive)
            name = name or next(iter(entries.values())).filename.split("/")[0]
            check_name(runs, name)
            with atomic_folder(runs / name) as folder:
                for path, entry in entries.items():
                    _extract(opened_archive, entry, folder / path)
                _check(folder, name, known, agree)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise UserError(f"This is no archive of a run ({one_line(str(error), 120)}).") from error
    return RunFolder.open(runs, name)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """An archive's files by their paths below the run's folder; every one is looked at before any is written.

    Raises:
        UserError: one is not what an archive of a run has.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > _MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise UserError(
            f"This archive has {len(entries):,} files, which may be large: a run has {_MOST_ENTRIES:,} files of "
            f"{MOST_BYTES:,} bytes in all at most."
        )
    folders = {PurePosixPath(entry.filename).parts[0] for entry in entries if entry.filename.strip("/")}
    for entry in entries:
        path = entry.filename.partition("/")[2]
        kind = stat.S_IFMT(entry.external_attr >> 16)
        ours = (path in _FILES or _RELEASED.fullmatch(path)) and ".." not in path.split("/")
        if not ours or len(folders) != 1 or kind not in (0, stat.S_IFREG) or entry.flag_bits & 1 or path in found:
            shown = one_line(entry.filename, 120)
            raise UserError(f"'{shown}' is no file of a run's archive. Nothing was taken from it.")
        found[path] = entry
    if not {"run.yaml", "manifest.json"} <= set(found):
        raise UserError("This archive holds no run: run.yaml and manifest.json are not in it.")
    return found


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # zipfile stops at the size that was declared, and checks the sum of it.
    with archive.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, _PIECE)


def _check(folder: Path, name: str, known: dict[str, Teacher], agree: Callable[[str], None]) -> None:
    """Refuse a folder that is no sound run.

    Raises:
        UserError: why.
    """
    run = RunFolder(folder)
    write_json(folder / "manifest.json", {**run.manifest(), "name": name})
    if problem := run.broken_table():
        raise UserError(f"A table of the archive cannot be read: {one_line(str(problem), 200)}")
    ledger = folder / "ledger.sqlite"
    if ledger.exists():
        try:
            with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as db:
                sound = db.execute("PRAGMA quick_check").fetchone()[0] == "ok"
                plain = db.execute(_LEDGER_TABLES).fetchone()[0] == 0
        except sqlite3.Error:
            sound = plain = False
        if not (sound and plain):
            raise UserError("The archive's ledger.sqlite is no ledger.")
    if asks := _foreign(run, known):
        agree(f"The run {name} would {'; '.join(asks)}.")


def _foreign(run: RunFolder, known: dict[str, Teacher]) -> list[str]:
    """What going on with a run would ask, start or read that is not known on this machine."""
    config = load_config(run)
    places = {(one.urls, one.api_key_env, one.serve) for one in known.values()}
    entries = {**config.teachers, **config.judge_teachers}
    asks = [
        f"ask {one.model} at {', '.join(one.urls) or 'a server that it starts'} with the key of "
        f"{one.api_key_env or 'no variable'}"
        for one in entries.values()
        if not one.embedded and (one.urls, one.api_key_env, one.serve) not in places
    ]
    if config.instructions:
        asks.append(f"word {', '.join(config.instructions)} in its own way")
    if config.checks.folder is not None:
        asks.append(f"check by the SQL in {config.checks.folder}")
    return [one_line(each, 300) for each in asks]
