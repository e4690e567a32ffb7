"""A result as JSON: what `--json` prints. docs/json.md says which object each command gives."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipelines.errors import visible
from pipelines.runs import RunFolder
from saferthoughts.release import Release


def json_of(result: object) -> str:
    """A result of the API as one JSON document: its fields by name, paths as text, a figure that is not known as null.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    return visible(json.dumps(_plain(result), indent=1, ensure_ascii=False, allow_nan=False))


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Release):
        return {"path": str(value.path), "version": value.version, "rows": value.rows}
    if isinstance(value, RunFolder):
        return str(value.path)
    if isinstance(value, Mapping):
        return _nested(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path | date):
        return str(value)
    if isinstance(value, float) and value != value:
        return None
    return value


def _nested(values: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping whose keys are texts; one of pairs becomes a mapping of mappings."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *outer, last = key if isinstance(key, tuple) else (key,)
        place = found
        for part in outer:
            place = place.setdefault(str(part), {})
        place[str(last)] = _plain(value)
    return found
