"""Which prompts a student was trained on: those of the release that its folder names.

Reads a release's parquet files and a student's training.json; writes nothing.

    release = release_of_student(Path("swept/lora-8"), [Path("runs")])
    prompts = trained_prompts(release) if release else None
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cards.card.model_card import RECORD, local_place
from pipelines.errors import UserError
from pipelines.runs import file_hash

# A release calls a prompt `query`, its run's other prompts `text`, and `behaviour` without its jailbreak template;
# datasets of others have it in `prompt` or only in `messages`.
_TEXTS = ("query", "prompt", "text", "behaviour")
_MESSAGES = "messages"


def trained_prompts(release: Path) -> frozenset[str]:
    """sha256 of each prompt of a release, with no space around it: of every configuration and of the run's prompts.

    Raises:
        UserError: the folder is no release, or a table of it cannot be read or holds no prompts.
    """
    from cards.rows.prompts_file import prompts_file

    tables = [path for path in sorted(release.glob("data/*/*.parquet")) if path.parent.name != "metadata"]
    if not tables:
        raise UserError(f"'{release}' is no release: it has no data/CONFIG/*.parquet. Give --release its folder.")
    every = prompts_file(release)
    texts = (prompt for path in [*tables, *([every] if every.is_file() else [])] for prompt in _prompts(path))
    return frozenset(prompt_sha256(prompt) for prompt in texts)


def _prompts(path: Path) -> Iterator[str]:
    from cards.rows.prompts_file import prompt_batches  # which needs DuckDB, as tasks of Inspect's do not

    try:
        if path.suffix == ".jsonl":
            for batch in prompt_batches(path):
                for name in ("text", "behaviour"):
                    yield from batch[name].to_pylist()
            return
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            columns = [name for name in (*_TEXTS, _MESSAGES) if name in there]
            if not columns:
                raise UserError(
                    f"{path} has none of the columns {', '.join((*_TEXTS, _MESSAGES))}, so that its prompts are "
                    "unknown. Fetch or build the release again."
                )
            for batch in file.iter_batches(batch_size=1000, columns=columns):
                for row in batch.to_pylist():
                    yield from (row[name] for name in _TEXTS if isinstance(row.get(name), str))
                    yield from _questions(row.get(_MESSAGES))
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason}). Fetch or build the release again.") from error


def _questions(messages: object) -> Iterator[str]:
    for turn in messages if isinstance(messages, list) else ():
        if isinstance(turn, dict) and turn.get("role") == "user" and isinstance(turn.get("content"), str):
            yield turn["content"]


def release_of_student(folder: Path, runs: Iterable[Path] = ()) -> Path | None:
    """The release that a student was trained on, None where it cannot be found.

    Args:
        folder: The student's. Its training.json has the sha256 of each file it read, local.json the release's folder.
        runs: Folders of runs, whose releases are looked through where the named folder is gone or holds other files.
    """
    try:
        dataset = json.loads((folder / RECORD).read_text(encoding="utf-8"))["dataset"]
        files = {str(name): str(digest) for name, digest in dataset["files"].items()}
        named = local_place(folder, "dataset") or folder / "release"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    beside = folder.resolve().parent / "release"
    elsewhere = (path for root in runs for path in sorted(root.glob("*/release")))
    return next((path for path in (named, beside, *elsewhere) if files and _holds(path, files)), None)


class TrainedOn(NamedTuple):
    """The release that a student was trained on, by title and version, and whether the rehearsal teacher made it."""

    name: str
    rehearsed: bool


def trained_on(folder: Path | None) -> TrainedOn:
    """The training record in a student's folder; empty for a model that was not trained here."""
    try:
        release = json.loads(((folder or Path("/")) / RECORD).read_text(encoding="utf-8"))["dataset"]["release"]
        return TrainedOn(f"{release['title']} {release['version']}", bool(release["rehearsal"]))
    except (OSError, ValueError, KeyError, TypeError):
        return TrainedOn("", False)


def _holds(release: Path, files: dict[str, str]) -> bool:
    """Whether a folder has all of these files, with these hashes."""
    try:
        return all(file_hash(release / name) == digest for name, digest in files.items())
    except OSError:
        return False


def prompt_sha256(prompt: str) -> str:
    """A prompt's sha256, as `TaskRequest.trained` has it."""
    return hashlib.sha256(prompt.strip().encode("utf-8", "surrogatepass")).hexdigest()
