"""Reading Inspect's logs, which are untrusted: within size limits, and never outside their folder.

Reads a results folder's logs; writes nothing.
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cards.release_folder import name_fault, shown
from pipelines.errors import UserError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

_GB = 1_000_000_000
_MOST_BYTES = 20 * _GB
_MOST_MEMBERS = 2_000_000
_MOST_UNFOLDING = 500
_UNFOLDING_FROM = _GB // 2


def check_log_name(name: str) -> None:
    """Refuse a log's path, as results.json has it, that leads out of the results' folder.

    Raises:
        UserError: it does, or it is no log's.
    """
    fault = name_fault(name)
    if fault is None and not name.endswith((".eval", ".json")):
        fault = "is no log of Inspect's (.eval, .json)"
    if fault is not None:
        raise UserError(f"The results name a log {shown(name)!r}, which {fault}.")


def read_log(folder: Path, name: str) -> "EvalLog":
    """A log of a results folder.

    Raises:
        UserError: its path leads out of the folder, it is a link, it unfolds to too much, or it is no log.
    """
    from inspect_ai.log import read_eval_log

    check_log_name(name)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"The log {name} is a link that leads out of {folder}.")
    if not path.is_file():
        raise UserError(f"There is no log {path}, which the results name.")
    _check_size(path)
    try:
        return read_eval_log(str(path))
    except (ValueError, KeyError, RecursionError, OSError, zipfile.BadZipFile, EOFError) as error:
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as a log of Inspect's: {type(error).__name__}: {message}") from error


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if path.suffix == ".json":
        if size > _GB:
            raise UserError(f"{path} has {size:,} bytes, more than {_GB:,}.")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UserError(f"{path} is no log of Inspect's: it cannot be opened as an archive ({error}).") from error
    unfolded = sum(member.file_size for member in members)
    if len(members) > _MOST_MEMBERS or unfolded > min(_MOST_BYTES, max(_UNFOLDING_FROM, _MOST_UNFOLDING * size)):
        raise UserError(f"{path} unfolds from {size:,} to {unfolded:,} bytes in {len(members):,} parts: too much.")
