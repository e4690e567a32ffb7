"""Local judges named by their folders: `local:FOLDER`, a folder alone, and `cascade:FOLDER,NAME` become entries.

Reads the folders' files for their digest; writes nothing. The entry keeps the folder's place and version, so that a run
goes on by the judge that it began with.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.settings.judge import load_judges

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


def with_folders(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration's values in which judges that are named by folders have entries.

    Raises:
        UserError: a folder that holds no local judge, or a cascade before something that is no LLM judge.
    """
    judging = values.get("judging")
    names = judging.get("judges") if isinstance(judging, dict) else None
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return values
    own = dict(values.get("judges") or {})
    known = {**{name: judge.model_dump(mode="json") for name, judge in load_judges().items()}, **own}
    found = [_entry(name, known) for name in names]
    own |= {name: entry for name, entry in found if entry is not None}
    return {**values, "judges": own, "judging": {**judging, "judges": [name for name, _ in found]}}  # type: ignore[dict-item]


def _entry(text: str, known: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """A judge's name, with its entry where the text names a folder."""
    kind, _, rest = text.partition(":")
    if kind == "cascade":
        place, comma, after = rest.rpartition(",")
        if not comma or not place or not after:
            raise UserError(f"'{text}' is no cascade: write cascade:FOLDER,NAME, as in cascade:judges/mine,o3.")
        if after not in known:
            raise unknown("judge of a cascade", after, known)
        if known[after].get("kind") != "patterns":
            raise UserError(
                f"A cascade ends at a model that judges the patterns, and '{after}' is none. Name another, as o3."
            )
        return f"cascade-{after}", {**known[after], **_folder(Path(place.removeprefix("local:")))}
    if kind == "local" and rest:
        return _named(Path(rest), known)
    from pipelines.judges.local.model import RECORD

    if text not in known and (Path(text) / RECORD).is_file():
        return _named(Path(text), known)
    return text, None


def _named(folder: Path, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    entry = {"kind": "local", **_folder(folder)}
    name = _PLAIN.sub("-", folder.resolve().name).strip(".-_")[:64] or "local"
    taken = name in known and known[name].get("kind") != "local"
    return f"local-{name}" if taken else name, entry


def _folder(folder: Path) -> dict[str, Any]:
    from pipelines.judges.local.model import digest_of

    return {"folder": str(folder.resolve()), "digest": digest_of(folder)}
