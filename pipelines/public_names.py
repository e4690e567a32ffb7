"""Public names of local things: what a file that leaves this machine holds in place of a path.

Cards, lineages, reports and the records of students name checkpoints, datasets and files by `public_name`. The paths
that this machine needs later go into LOCAL, which is neither signed nor pushed. `check_public` is the net: every push
passes it. Reads the files of a push, writes nothing.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from pipelines.errors import UserError

LOCAL = "local.json"
"""Paths of this machine beside a student's record: its checkpoint and its release."""

# A snapshot in the cache of the Hub's client: models--ORG--NAME/snapshots/COMMIT.
_SNAPSHOT = re.compile(r"(?:models|datasets)--(.+?)--(.+)")
_HOMES = ("home", "Users")
# Rows are other people's words, and large files are binary.
_ROWS = (".parquet", ".jsonl", ".safetensors", ".bin")
_READ_BYTES = 1_000_000


def public_name(place: str | PurePath, parts: int = 1) -> str:
    """The name of a path: ORG/NAME for one in the Hub's cache, else its last part or parts. Other names are unchanged.

    Args:
        place: A path; as a string also a name on the Hub, or of something bundled.
        parts: How many parts of a path to keep. A home folder's name is a person's and never kept.
    """
    text, path = str(place), Path(place)
    local = isinstance(place, PurePath) or path.is_absolute() or text.startswith(("~", "."))
    if not local and not (len(path.parts) > 1 and os.path.exists(path)):
        return text.rstrip("/")
    for part in path.parts:
        if found := _SNAPSHOT.fullmatch(part):
            return f"{found[1]}/{found[2]}"
    kept = path.parts
    if path.is_relative_to(_home()):
        kept = path.relative_to(_home()).parts
    elif len(kept) > 2 and kept[1] in _HOMES:
        kept = kept[3:]
    named = [part for part in kept if part not in ("/", "~", ".", "..")]
    if named or path.is_absolute():
        return "/".join(named[-parts:]) or "local"
    return public_name(path.resolve(), parts)


def public_values(value: Any) -> Any:
    """A JSON-like value, each path in it by its public name."""
    if isinstance(value, dict):
        return {key: public_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_values(item) for item in value]
    if not isinstance(value, str) or (len(value.split()) > 1 and not os.path.exists(value)):
        return value
    return public_name(value)


def check_public(folder: Path, files: Mapping[str, Path]) -> None:
    """Refuse to publish files that name the folder they are in, or the home folder of whoever runs this.

    Args:
        folder: What is published.
        files: Its files by name. Those of rows and weights are not read.

    Raises:
        UserError: a file does.
    """
    # A short path, such as /root or /data, identifies nobody and may occur in any text.
    places = sorted(str(place) for place in (folder.resolve(), _home()) if len(place.parts) > 2)
    marks = dict.fromkeys(mark for place in places for mark in (place, json.dumps(place)[1:-1]))
    for name, path in files.items():
        for mark in marks:
            if path.suffix not in _ROWS and _has(path, mark.encode()):
                raise UserError(
                    f"{folder / name} holds '{mark}', a path of this machine, and is not published. Take it out of the "
                    "file, or make the folder again with this version; then run the same command again."
                )


def _home() -> Path:
    """The home folder; a path that nothing is below where this user has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)


def _has(path: Path, mark: bytes) -> bool:
    """Whether a file contains some bytes; it may be large."""
    with path.open("rb") as file:
        rest = b""
        while piece := file.read(_READ_BYTES):
            if mark in rest + piece:
                return True
            rest = piece[-len(mark) :]
    return False
