"""The run folder: where every stage reads and writes, and nothing is ever half-written (see `pipelines/files.py`).

runs/<name>/
  run.yaml            resolved configuration, no secrets
  manifest.json       lineage: what each stage read, wrote and counted
  ledger.sqlite       every answered request
  prompts.parquet  responses.parquet  failed.parquet  judgements.parquet  verdicts.parquet  repairs.parquet
  review_frame.parquet  review_sample.parquet  review_picked.parquet  reviews.parquet  decisions.parquet
  duplicates.parquet  contamination.parquet  accepted.parquet  rejected.parquet  selected.parquet
  student_nll.parquet
  release/  model/  students/NAME/  eval/  evaluations/NAME/  report.html
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from pipelines.errors import UserError, one_line, unknown
from pipelines.files import atomic, atomic_folder, file_hash, write_json, write_text
from pipelines.settings.old_names import names_now, rows_now

__all__ = [
    "FORMAT",
    "VERSION",
    "WRITTEN_BY",
    "RunFolder",
    "atomic",
    "atomic_folder",
    "file_hash",
    "write_json",
    "write_text",
]

# Raised when a table or the manifest changes its meaning: an older folder is then refused, not misread.
FORMAT = 2
VERSION = "0.2.0"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

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
    "student_nll": "student nll",
    "review_frame": "review push",
    "review_sample": "review push",
    "review_picked": "review push",
    "reviews": "review pull",
    "decisions": "review apply",
}


class RunFolder:
    """One run under `runs/`. Opening never writes; `create` makes the folder and its manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, runs: Path, name: str) -> "RunFolder":
        """Make `runs/name`, or open it where it is there already.

        Raises:
            UserError: a name that is not a plain folder name, or a folder of another version.
        """
        if not RUN_NAME.fullmatch(name):
            raise UserError(
                f"Run name '{name}' cannot be a folder: use letters, digits, '.', '_' and '-', at most 64, "
                "beginning with a letter or digit."
            )
        run = cls(runs / name)
        if not (run.path / "manifest.json").exists():
            run.path.mkdir(parents=True, exist_ok=True)
            with run.locked():
                if not (run.path / "manifest.json").exists():
                    created = datetime.now(UTC).isoformat(timespec="seconds")
                    first = {"format": FORMAT, "name": name, "id": token_hex(4), "created": created, "stages": {}}
                    write_json(run.path / "manifest.json", first)
                    return run
        run.manifest()
        return run

    @classmethod
    def open(cls, runs: Path, name: str) -> "RunFolder":
        """Open a run that exists.

        Raises:
            UserError: no such run (the choices are listed), or a folder of another version.
        """
        run = cls(runs / name)
        if not RUN_NAME.fullmatch(name) or not (run.path / "manifest.json").exists():
            if runs.exists() and not runs.is_dir():
                raise UserError(f"--runs {runs} is a file and not a folder of runs. Name the folder.")
            if RUN_NAME.fullmatch(name) and run.path.is_dir():
                raise run.no_manifest("is not there")
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
            manifest = json.loads(path.read_text(encoding="utf-8"), object_hook=self._entry)
            version = dict(manifest)["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.no_manifest(f"is not a run's manifest ({type(error).__name__}: {error})") from error
        if version != FORMAT:
            raise UserError(
                f"{self.path} was made by another version of SaferThoughts (its format is {version!r}, this one reads "
                f"{FORMAT}). Use the version that made it, or start a new run under another name."
            )
        wrong = _wrong_in(manifest)
        if wrong:
            raise self.no_manifest(f"is not a run's manifest ({wrong})")
        return dict(manifest)

    def no_manifest(self, what: str) -> UserError:
        """The error of a manifest that cannot be used, with the commands that make it anew from what else is there."""
        config = self.path / "run.yaml"
        keeping = f" --config {shlex.quote(str(config))}" if config.exists() else ""
        path = self.path / "manifest.json"
        return UserError(
            f"{path} {what}. {'Delete it and make' if path.exists() else 'Make'} it anew: saferthoughts prompts "
            f"{self.name}{keeping}, then saferthoughts run {self.name}. Answers are kept in the ledger, and are not "
            "asked for again."
        )

    def _entry(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self

        class Entry(dict[str, Any]):
            """A part of the manifest: what it lacks is the user's to mend, by the stage that writes it."""

            def __missing__(self, key: str) -> Any:
                if key in WRITTEN_BY.values():
                    again = f"Run first: saferthoughts {key} {run.name}"
                    raise UserError(f"{run.path / 'manifest.json'} has no entry of stage `{key}`. {again}")
                raise run.no_manifest(f"lacks `{key}`")

        return Entry(names_now(values))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the run's manifest and configuration, for as long as it takes to read, change and write one."""
        lock = self.path / ".lock"
        lock.touch()  # with the umask's mode, which FileLock's own files do not have
        with FileLock(lock):
            yield

    @property
    def id(self) -> str:
        """8 hex digits that no other run has, whatever its name."""
        manifest = self.manifest()
        return str(manifest.get("id") or hashlib.sha256(str(manifest.get("created")).encode()).hexdigest()[:8])

    def record(self, stage: str, **facts: Any) -> None:
        """Set a stage's entry in the manifest: what it read, wrote and counted."""
        with self.locked():
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
        """A table of the run as an open file, for reading it in batches; variants have the names that they have now.

        Raises:
            UserError: it is missing, or is not parquet.
        """
        path = self.require(name)
        try:
            with _Table(path) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            # pyarrow's words on broken bytes are an OSError too, but without the system's number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self.broken(name, error) from error

    def broken(self, name: str, error: Exception) -> UserError:
        """The error of a table that cannot be read, with the command that makes it again."""
        return UserError(
            f"{self.table_path(name)} is not readable parquet ({one_line(str(error), 200)}). Delete it and make "
            f"it again: saferthoughts {WRITTEN_BY[name]} {self.name}"
        )

    def broken_table(self) -> UserError | None:
        """The error of the first table of the run that cannot be read to its end, None where all can."""
        for name in WRITTEN_BY:
            if self.table_path(name).exists():
                try:
                    with self.opened(name) as file:
                        for batch in file.iter_batches():
                            batch.validate(full=True)
                except UserError as error:
                    return error
        return None

    def write(self, name: str, table: pa.Table) -> Path:
        """Write a table of the run atomically and return its path."""
        self.write_all({name: table})
        return self.table_path(name)

    def write_all(self, tables: Mapping[str, pa.Table]) -> None:
        """Write several tables, of which none takes its place before all are written."""
        with ExitStack() as stack:
            for name, table in tables.items():
                temporary = stack.enter_context(atomic(self.table_path(name)))
                pq.write_table(table, temporary, compression="zstd")


class _Table(pq.ParquetFile):  # type: ignore[misc]
    """A table of a run, whichever version wrote it."""

    def read(self, *given: Any, **named: Any) -> pa.Table:
        """All rows."""
        return rows_now(super().read(*given, **named))

    def iter_batches(self, *given: Any, **named: Any) -> Iterator[pa.RecordBatch]:
        """The rows a batch at a time."""
        yield from map(rows_now, super().iter_batches(*given, **named))


def _wrong_in(manifest: dict[str, Any]) -> str:
    """What a manifest lacks, or has in another form than its readers expect; "" where it is as it should be."""
    for key, kind in (("name", str), ("created", str), ("stages", dict)):
        if not isinstance(manifest.get(key), kind):
            return f"`{key}` is {'missing' if key not in manifest else f'no {kind.__name__}'}"
    for stage, entry in manifest["stages"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("finished"), str):
            return f"the entry of stage `{stage}` is none"
        for key, value in entry.items():
            kinds = _KINDS.get(key)
            if kinds and not isinstance(value, kinds):
                return f"`{key}` of stage `{stage}` is no {' or '.join(kind.__name__ for kind in kinds)}"
            # A count is null where nobody looked.
            numbers = isinstance(value, dict) and all(one is None or isinstance(one, int) for one in value.values())
            if key == "counts" and isinstance(value, dict) and not numbers:
                return f"`counts` of stage `{stage}` are no numbers"
    return ""


# What the entries' readers expect of each key.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("inputs", "outputs", "pool", "settings", "queries", "sets", "rubrics", "after"), (dict,)),
    **dict.fromkeys(("reasons", "draws"), (list,)),
    "counts": (dict, list),
    "by_variant": (dict, list),
}
