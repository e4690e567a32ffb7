"""What variants were called before: the one place that knows, for whatever still says the old name.

Run folders, releases, students, recipes and command lines of before say `default`, the study's name for the teacher's
own reasoning. It is `direct` now: a release's configuration of the name `default` would be what everybody gets who asks
for none. Whatever is read says the new name from here on; nothing on disk is changed. Reads and writes nothing.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import pyarrow as pa

OLD_NAMES = {"default": "direct"}
_FIRST_NAMES = {new: old for old, new in OLD_NAMES.items()}
# Columns of a run's tables, and keys of manifests and lineages, that hold the name of a variant or configuration ...
_NAMED = ("variant", "config", "benign_variant")
# ... and those that hold several, or map them to something.
_NAMING = ("variants", "instructions", "by_variant", "after", "funnel", "rows", "content")

Value = TypeVar("Value")
Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


def current_name(name: str) -> str:
    """What a variant is called now."""
    return OLD_NAMES.get(name, name)


def first_name(name: str) -> str:
    """What a variant was called first. Ids of rows and seeds of draws are made of it, so that another name changes
    neither: people's votes and releases of before know rows by their ids."""
    return _FIRST_NAMES.get(name, name)


def typed_name(name: str) -> str:
    """What a variant that somebody typed is called now, with a line for them where that is another name."""
    if name in OLD_NAMES:
        from pipelines.progress import console

        console.print(f"variant '{name}' is called '{OLD_NAMES[name]}' now; taken for that", soft_wrap=True)
    return current_name(name)


def keys_now(values: Mapping[str, Value]) -> dict[str, Value]:
    """A mapping from variants, by their names now.

    Raises:
        ValueError: it names one under both names.
    """
    found = {current_name(name): value for name, value in values.items()}
    if len(found) < len(values):
        twice = ", ".join(f"'{old}' and '{new}'" for old, new in OLD_NAMES.items() if {old, new} <= set(values))
        raise ValueError(f"{twice} are one variant: '{current_name(next(iter(OLD_NAMES)))}' is its name now")
    return found


def names_now(values: dict[str, Any]) -> dict[str, Any]:
    """One mapping of a manifest, lineage or configuration: the variants in its own keys and values by their names now.

    What it holds beside variants, and mappings deeper within it, stay as they are.
    """
    found = dict(values)
    for key in _NAMED:
        if isinstance(found.get(key), str):
            found[key] = current_name(found[key])
    for key in _NAMING:
        one = found.get(key)
        if isinstance(one, dict):
            found[key] = keys_now(one)
        elif isinstance(one, list | tuple):
            found[key] = [current_name(name) if isinstance(name, str) else name for name in one]
    return found


def all_names_now(value: Any) -> Any:
    """A lineage as it was read: every mapping in it as `names_now` has it."""
    if isinstance(value, dict):
        return names_now({key: all_names_now(one) for key, one in value.items()})
    return [all_names_now(one) for one in value] if isinstance(value, list) else value


def rows_now(rows: Rows) -> Rows:
    """Rows of a run's table with the variants' names now."""
    import pyarrow.compute as pc

    for name in _NAMED:
        place = rows.schema.get_field_index(name)
        if place < 0:
            continue
        column = rows.column(place)
        for old, new in OLD_NAMES.items():
            column = pc.if_else(pc.fill_null(pc.equal(column, old), False), pa.scalar(new, column.type), column)
        rows = rows.set_column(place, rows.schema.field(place), column)
    return rows


def sql_now(columns: list[str]) -> str:
    """The REPLACE clause of DuckDB that does the same to these columns, "" where none holds a name."""
    cases = "".join(f" WHEN '{old}' THEN '{new}'" for old, new in OLD_NAMES.items())
    changed = [f"CASE {name}{cases} ELSE {name} END AS {name}" for name in columns if name in _NAMED]
    return f"REPLACE ({', '.join(changed)})" if changed else ""
