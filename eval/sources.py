"""Where a task's questions come from: a local file, the bundled sample, or a public file at a pinned revision.

Reads .jsonl, .csv, .parquet, .yaml or .txt; writes nothing but the cache of public files, ~/.cache/saferthoughts or
SAFERTHOUGHTS_CACHE, where a file lies under the commit that it is of. A task does

    loaded = load(request, PUBLIC, SAMPLE, {"question": ("question", "query", "prompt")}, {"category": ("category",)})

and gets rows in which those names are set, whatever the file calls them, beside all of the file's own columns.
"""

import os
import re
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from eval.protocols import EXCLUDE
from eval.run.results import DataUsed
from eval.task_spec import TaskRequest
from eval.training_overlap import prompt_sha256
from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.row_files import Row, read_rows
from pipelines.runs import atomic, file_hash

# Our name of a column -> what a file may call it, the first that is there.
Columns = Mapping[str, Sequence[str]]
# What the name of a bundled sample ends with, in results too.
BUNDLED = "(bundled)"
GITHUB = "https://raw.githubusercontent.com"
OWN_LICENSE = "apache-2.0"
NOT_STATED = "not stated"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Public:
    """One file of a repository of datasets on the Hub, or of a repository on GitHub.

    Args:
        revision: A commit. On the Hub also a branch or tag, which is looked up when it is read, and recorded.
        license: The data's, by the Hub's identifiers.
    """

    repo: str
    revision: str
    file: str
    license: str
    host: Literal["hub", "github"] = "hub"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The rows of a file in its order, and what is recorded of the file."""

    rows: list[dict[str, Any]]
    source: str
    revision: str
    sha256: str
    license: str

    def used(self, questions: int, left_out: int = 0) -> DataUsed:
        """The facts for the results, once the task knows how many questions it asks and how many it left out."""
        return DataUsed(self.source, self.revision, self.sha256, self.license, questions, left_out)


def load(request: TaskRequest, public: Public, sample: Path, need: Columns, may: Columns | None = None) -> Loaded:
    """All rows of what the user asked for; `request.limit` is the task's to heed, after it left rows out.

    Args:
        request: `data` wins over `bundled`; with neither the public file is fetched, once.
        need: Columns that every row must have words in; white space around them is taken off.
        may: Columns that are None where a file has them not.

    Raises:
        UserError: there is no such file, it cannot be fetched or read, it holds no row, or a row lacks a column.
    """
    if request.data is not None:
        return _read(request.data, request.data.name, "", NOT_STATED, need, may or {})
    if request.bundled:
        return _read(sample, f"{sample.name} {BUNDLED}", "", OWN_LICENSE, need, may or {})
    path, commit = fetch(public)
    return _read(path, f"{public.repo}/{public.file}", commit, public.license, need, may or {})


def untrained(request: TaskRequest, loaded: Loaded) -> list[dict[str, Any]]:
    """The rows whose question the model was not trained on; all of them where the protocol does not leave those out.

    Raises:
        UserError: it was trained on every one.
    """
    if not request.settings.get(EXCLUDE):
        return loaded.rows
    found = [row for row in loaded.rows if not trained_on_question(request.trained, row["question"])]
    if not found:
        raise UserError(f"The model was trained on each of the {len(loaded.rows)} questions of {loaded.source}.")
    return found


def trained_on_question(trained: frozenset[str], question: str) -> bool:
    """Whether a question is among the trained prompts, as it is or without the stray backslashes that the study's file
    of XSTest has before quotation marks."""
    return not trained.isdisjoint(prompt_sha256(text) for text in (question, question.replace('\\"', '"')))


def row_id(row: Mapping[str, Any], text: str) -> str:
    """A sample's id: the file's own where it has one, else a hash of the question, the same in every file and task."""
    own = row.get("id", row.get("unique_id"))
    return str(own) if own not in (None, "") else content_id(text)


def distinct(ids: Sequence[str], loaded: Loaded) -> None:
    """Refuse duplicate ids: their answers could not be distinguished.

    Raises:
        UserError: one does.
    """
    value, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise UserError(f"{loaded.source} has the question '{value}' {count} times. Each may stand once.")


def fetch(public: Public) -> tuple[Path, str]:
    """The public file on this machine, and the commit that it is of.

    Raises:
        UserError: it is not in the cache and cannot be had.
    """
    try:
        return _from_github(public) if public.host == "github" else _from_hub(public)
    except OSError as error:  # urllib's errors and huggingface_hub's are
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{public.file} of {public.repo} at {public.revision[:12]} cannot be fetched ({why}). Give the questions "
            "as a file with --data, or take the bundled ones with --suite quick."
        ) from error


def _from_hub(public: Public) -> tuple[Path, str]:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, hf_hub_download

    commit = public.revision
    try:
        if not _COMMIT.fullmatch(commit):
            commit = str(HfApi().dataset_info(public.repo, revision=public.revision).sha)
        return Path(hf_hub_download(public.repo, public.file, repo_type="dataset", revision=commit)), commit
    except HTTPError as error:  # one that the Hub's client did not wrap into its own
        raise OSError(str(error)) from error


def _from_github(public: Public) -> tuple[Path, str]:
    root = Path(os.environ.get("SAFERTHOUGHTS_CACHE") or Path.home() / ".cache" / "saferthoughts")
    path = root / "questions" / public.repo.replace("/", "--") / public.revision / public.file
    if not path.exists():
        address = f"{GITHUB}/{public.repo}/{public.revision}/{quote(public.file)}"
        with urllib.request.urlopen(address, timeout=_PATIENCE_S) as response:
            content = response.read()
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    return path, public.revision


def _read(path: Path, source: str, revision: str, license_: str, need: Columns, may: Columns) -> Loaded:
    if not path.is_file():
        raise UserError(f"There is no file '{path}' of questions. Give one with --data: .jsonl, .csv or .parquet.")
    rows = [_named(row, need, may) for row in read_rows(path)]
    return Loaded(rows, source, revision, file_hash(path), license_)


def _named(row: Row, need: Columns, may: Columns) -> dict[str, Any]:
    named = dict(row.values)
    columns = {str(column).lower(): column for column in reversed(list(row.values))}
    for name, called in need.items():
        found = [columns[column.lower()] for column in called if column.lower() in columns]
        if not found:
            raise UserError(f"{row.where} has no column for the {name}. Call it one of: {', '.join(called)}.")
        value = row.values[found[0]]
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{row.where}: '{found[0]}' holds no text. Put it right or take the row out.")
        named[name] = value.strip()
    for name, called in may.items():
        values = (row.values.get(columns.get(column.lower(), "")) for column in called)
        named[name] = next((value for value in values if value is not None), None)
    return named
