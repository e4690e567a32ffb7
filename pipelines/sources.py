"""Rows from elsewhere: a local file, a local folder that `datasets` can load, or a dataset on the Hub.

Reads what it is pointed at; writes nothing but the cache that `datasets` keeps. Used for evaluation sets, for foreign
datasets that are to be checked, and for mixtures.
"""

import tempfile
from collections.abc import Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from pipelines.errors import UserError, one_line, unknown
from pipelines.files import file_hash
from pipelines.row_files import READERS, kind_of, read_rows
from pipelines.settings.parts import Part


class Source(Part):
    """Where rows come from. `hub` is a repository's name, or a path."""

    hub: str
    config: str | None = Field(default=None, description="configuration of the repository")
    split: str = "train"
    files: str | None = Field(default=None, description="which files, for a repository that datasets cannot load whole")
    revision: str | None = Field(default=None, description="a tag or commit; the newest one if not given")


def read_source(source: Source, most: int | None = None) -> list[dict[str, Any]]:
    """All rows, as mappings of columns; with `most` the first so many of a repository, of which no more is fetched.

    Raises:
        UserError: nothing is there under that name, it cannot be read, or it has no rows.
    """
    path = Path(source.hub)
    if path.is_file():
        return [dict(row.values) for row in read_rows(path)]
    if not source.hub or (not path.is_dir() and (source.hub.count("/") != 1 or kind_of(path) in READERS)):
        raise UserError(f"There is no file or folder '{source.hub}', and a dataset on the Hub is named OWNER/NAME.")
    rows = _local(source, path) if path.is_dir() else _loaded(source, None, most)
    if not rows:
        raise UserError(f"{source.hub} has no rows in split '{source.split}'.")
    return rows


def digest_of(source: Source) -> str | None:
    """What identifies the content of a file or folder; None for a repository, which a revision identifies, and where a
    file of the folder cannot be read."""
    path = Path(source.hub)
    try:
        if path.is_file():
            return f"sha256 {file_hash(path)}"
        if not path.is_dir():
            return None
        names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        lines = "".join(f"{file_hash(path / name)}  {name}\n" for name in names)
    except OSError:
        return None
    return f"sha256 of the hashes and names of its files {sha256(lines.encode()).hexdigest()}"


def _local(source: Source, path: Path) -> list[dict[str, Any]]:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _saved(source, path)
    # A cache of its own: `datasets` takes two folders of one name for one dataset, and gives the first one's rows.
    with tempfile.TemporaryDirectory() as cache:
        return _loaded(source.model_copy(update={"hub": str(path.resolve())}), cache)


def _saved(source: Source, path: Path) -> list[dict[str, Any]]:
    """What `save_to_disk` of `datasets` left."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"Dataset '{path}' cannot be loaded: {one_line(str(error))}") from error
    if isinstance(found, datasets.DatasetDict):
        if source.split not in found:
            raise unknown(f"split of {path}", source.split, found)
        found = found[source.split]
    return [dict(row) for row in found]


def _loaded(source: Source, cache: str | None, most: int | None = None) -> list[dict[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        if source.files is not None and cache is None:
            files = f"hf://datasets/{source.hub}{'@' + source.revision if source.revision else ''}/{source.files}"
            found = datasets.load_dataset("json", data_files=files, split=source.split, streaming=most is not None)
        else:
            found = datasets.load_dataset(
                source.hub,
                source.config,
                split=source.split,
                revision=source.revision,
                cache_dir=cache,
                streaming=most is not None,
            )
        return [dict(row) for row in islice(found, most)]
    except Exception as error:
        message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = " Without a network, give a file." if cache is None else ""
        raise UserError(f"Dataset '{source.hub}' cannot be loaded: {message.strip()}{hint}") from error


def column_of(rows: list[dict[str, Any]], wanted: str | None, choices: tuple[str, ...], where: str) -> str:
    """The column to read: the wanted one, or the first of the usual names.

    Raises:
        UserError: it is not there; the columns are listed.
    """
    columns = list(rows[0])
    if wanted is not None:
        if wanted not in columns:
            raise unknown(f"column of {where}", wanted, columns)
        return wanted
    found = next((name for name in choices if name in columns), None)
    if found is None:
        raise UserError(
            f"{where} has no column {', '.join(choices)}; it has: {', '.join(columns)}. Name the one to read."
        )
    return found


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A column's text.

    Raises:
        UserError: it is not text, or cannot be stored as UTF-8.
    """
    value = row.get(column)
    if not isinstance(value, str):
        raise UserError(f"{where}: column '{column}' holds {type(value).__name__}, not text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: column '{column}' holds half of a surrogate pair, which no file can store."
        ) from error
    return value
