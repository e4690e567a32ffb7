"""The run folder: where every stage reads and writes, and nothing is ever half-written.

runs/<name>/
  run.yaml            resolved configuration, no secrets
  manifest.json       lineage: what each stage read, wrote and counted
  ledger.sqlite       every answered request
  prompts.parquet  responses.parquet  failed.parquet  judgements.parquet  verdicts.parquet  repairs.parquet
  review_sample.parquet  reviews.parquet  decisions.parquet
  duplicates.parquet  contamination.parquet  accepted.parquet  rejected.parquet  selected.parquet
  release/  model/  eval/  report.html
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UserError, unknown

# Raised when a table or the manifest changes its meaning: an older folder is then refused, not misread.
FORMAT = 2
VERSION = "0.1.0"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Which stage writes a file, for the message when it is missing.
WRITTEN_BY = {
    "prompts": "prompts",
    "responses": "generate",
    "failed": "generate",
    "judgements": "judge",
    "verdicts": "judge",
    "repairs": "repair",
    "accepted": "check",
    "rejected": "check",
    "duplicates": "duplicates",
    "contamination": "contamination",
    "selected": "select",
    "review_sample": "review push",
    "reviews": "review pull",
    "decisions": "review apply",
}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: a fresh one beside `path`, swapped in when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def file_hash(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunFolder:
    """One run under `runs/`. Opening never writes; `create` makes the folder and its manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @classmethod
    def create(cls, runs: Path, name: str) -> "RunFolder":
        """Make `runs/name`, or open it where it is there already.

        Raises:
            UserError: a name that is not a plain folder name, or a folder of another version.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"Run name '{name}' cannot be a folder: use letters, digits, '.', '_' and '-', at most 64, "
                "beginning with a letter or digit."
            )
        run = cls(runs / name)
        if (run.path / "manifest.json").exists():
            run.manifest()
            return run
        run.path.mkdir(parents=True, exist_ok=True)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(run.path / "manifest.json", {"format": FORMAT, "name": name, "created": created, "stages": {}})
        return run

    @classmethod
    def open(cls, runs: Path, name: str) -> "RunFolder":
        """Open a run that exists.

        Raises:
            UserError: no such run (the choices are listed), or a folder of another version.
        """
        run = cls(runs / name)
        if not _NAME.fullmatch(name) or not (run.path / "manifest.json").exists():
            found = sorted(path.parent.name for path in runs.glob("*/manifest.json"))
            if not found:
                raise UserError(
                    f"There is no run '{name}' under {runs}/. Start one: saferthoughts prompts {name} --teacher NAME"
                )
            raise unknown(f"run under {runs}/", name, found)
        run.manifest()
        return run

    def manifest(self) -> dict[str, Any]:
        """The manifest as it is on disk.

        Raises:
            UserError: it cannot be read, or was written in another format.
        """
        path = self.path / "manifest.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            version = manifest["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is not a run's manifest ({error}). Move the folder away and start again."
            ) from error
        if version != FORMAT:
            raise UserError(
                f"{self.path} was made by another version of SaferThoughts (its format is {version!r}, this one reads "
                f"{FORMAT}). Use the version that made it, or start a new run under another name."
            )
        return dict(manifest)

    def record(self, stage: str, **facts: Any) -> None:
        """Set a stage's entry in the manifest: what it read, wrote and counted."""
        manifest = self.manifest()
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        manifest["stages"][stage] = {"finished": finished, "version": VERSION, **facts}
        write_json(self.path / "manifest.json", manifest)

    def stage(self, stage: str) -> dict[str, Any] | None:
        """A stage's entry in the manifest, None where it has not run."""
        entry = self.manifest()["stages"].get(stage)
        return None if entry is None else dict(entry)

    def table_path(self, name: str) -> Path:
        """Where a table of the run lives, whether or not it is there yet."""
        return self.path / f"{name}.parquet"

    def require(self, name: str) -> Path:
        """The path of a table that must be there.

        Raises:
            UserError: it is not, with the stage that writes it.
        """
        path = self.table_path(name)
        if not path.exists():
            stage = WRITTEN_BY[name]
            raise UserError(f"{self.path} has no {path.name} yet. Run first: saferthoughts {stage} {self.name}")
        return path

    def read(self, name: str) -> pa.Table:
        """A table of the run.

        Raises:
            UserError: it is missing, or is not parquet.
        """
        with self.opened(name) as file:
            return file.read()

    @contextmanager
    def opened(self, name: str) -> Iterator[pq.ParquetFile]:
        """A table of the run as an open file, for reading it in batches.

        Raises:
            UserError: it is missing, or is not parquet.
        """
        path = self.require(name)
        try:
            with pq.ParquetFile(path) as file:
                yield file
        except pa.ArrowException as error:
            again = f"saferthoughts {WRITTEN_BY[name]} {self.name}"
            raise UserError(f"{path} is not readable parquet ({error}). Delete it and run again: {again}") from error

    def write(self, name: str, table: pa.Table) -> Path:
        """Write a table of the run atomically and return its path."""
        path = self.table_path(name)
        with atomic(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return path
