"""The rows a recipe trains on, drawn from a release folder.

Reads the release's README.md (its `configs:`) and data/<config>/train-*.parquet through `datasets`. Writes only a
cache in the folder it is given. The draw depends on the rows' ids and the recipe's seed, not on their order.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from cards.release_folder import open_release
from cards.rows.shards import shards_of
from pipelines.errors import UserError, one_line, unknown
from pipelines.files import ON_WRITING
from pipelines.records import content_id
from pipelines.runs import file_hash
from pipelines.settings.old_names import first_name
from pipelines.system_errors import system_line
from pipelines.thinking import ReasoningKey, join


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One conversation to train on: `messages` is [{role, content}, ...], the last one the assistant's (of a prompt to
    be answered by the student, the user's). `category` is the prompt's, "" where the release has none. A pair has the
    same prompt with the response that was `rejected`, and the `margin` between them where it counts; `label` says
    whether a single response is wanted."""

    id: str
    config: str
    kind: str
    messages: tuple[Mapping[str, str], ...]
    category: str = ""
    rejected: tuple[Mapping[str, str], ...] | None = None
    label: bool | None = None
    margin: float | None = None

    def side(self, name: str) -> "TrainingRow":
        """One side of a pair, chosen or rejected, as a conversation; the row itself where it has one alone."""
        if self.rejected is None:
            return self
        messages = self.rejected if name == "rejected" else self.messages
        return TrainingRow(f"{self.id} ({name})", self.config, self.kind, messages, self.category)

    def texts(self) -> tuple[Any, ...]:
        """The parts that are learned from, for a hash."""
        return (self.messages, *(part for part in (self.rejected, self.label, self.margin) if part is not None))


@dataclass(frozen=True, slots=True)
class RowForm:
    """The shape of the rows that an objective reads: the columns that a configuration must have, and the row of such
    values in a configuration (a UserError where they do not hold)."""

    columns: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str], TrainingRow]


@dataclass(frozen=True, slots=True)
class Mixture:
    """The drawn rows, config by config. `files` are the sha256 of the release's files, `content` a hash of the rows."""

    rows: tuple[TrainingRow, ...]
    files: Mapping[str, str]
    content: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows by config and kind."""
        tally = Counter((row.config, row.kind) for row in self.rows)
        configs = dict.fromkeys(row.config for row in self.rows)
        return {config: {kind: n for (of, kind), n in sorted(tally.items()) if of == config} for config in configs}


def draw(dataset: Path, wanted: Mapping[str, int], seed: int, cache: Path, form: "RowForm | None" = None) -> Mixture:
    """Draw `wanted` rows of each configuration, conversations if no other form is wanted.

    Raises:
        UserError: no release there, an unknown configuration, a column that is missing, an empty split, too few rows,
            or a row that is not of the form.
    """
    import datasets

    if not dataset.is_dir():
        raise UserError(f"Dataset '{dataset}' is not a folder. Give a release folder, e.g. runs/demo/release.")
    open_release(dataset)
    try:
        configs = datasets.get_dataset_config_names(str(dataset.resolve()))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _unreadable(dataset, error, cache) from error
    rows: list[TrainingRow] = []
    for config, count in wanted.items():
        # A release of before has it under its first name.
        there = next((name for name in (config, first_name(config)) if name in configs), None)
        if there is None:
            raise unknown(f"configuration of the release {dataset}", config, configs)
        found = _load(dataset, there, cache, (form or CONVERSATIONS).columns)
        rows += _draw_config(found, dataset, config, count, seed, form or CONVERSATIONS)
    files = sorted(path for config in wanted for path in shards_of(dataset, config))
    categories = _first_categories(dataset)
    return Mixture(
        rows=tuple(replace(row, category=row.category or categories.get(row.id, "")) for row in rows),
        files={path.relative_to(dataset).as_posix(): file_hash(path) for path in files},
        content=content_id(*((first_name(row.config), row.id, *row.texts()) for row in rows)),
    )


def _first_categories(dataset: Path) -> dict[str, str]:
    """Category of each row by its id, as the `metadata` of a release of format 1 has it; none where there is none."""
    found: dict[str, str] = {}
    for path in shards_of(dataset, "metadata"):
        try:
            table = pq.read_table(path, columns=["id", "category"])
        except (OSError, ValueError, pa.ArrowException):
            return {}
        found |= dict(zip(*(map(str, table[name].to_pylist()) for name in ("id", "category")), strict=True))
    return found


def _load(dataset: Path, config: str, cache: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    import datasets

    try:
        split = datasets.load_dataset(str(dataset.resolve()), config, split="train", cache_dir=str(cache))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        # A file of no rows at all is an error inside `datasets` 5.2 (a batch size of 0).
        if "BatchSize must be greater than 0" in str(_innermost(error)):
            raise _empty(dataset, config) from error
        raise _unreadable(dataset, error, cache) from error
    if missing := [name for name in columns if name not in split.column_names]:
        raise _without(dataset, config, missing[0], columns, split.column_names)
    if not len(split):
        raise _empty(dataset, config)
    kept = [name for name in ("id", "kind", "category", "margin", *columns) if name in split.column_names]
    return [dict(row) for row in split.select_columns(kept)]


def _draw_config(
    found: list[dict[str, Any]], dataset: Path, config: str, count: int, seed: int, form: RowForm
) -> list[TrainingRow]:
    if len(found) < count:
        raise UserError(
            f"Configuration '{config}' of {dataset} has {len(found)} rows, the recipe's mixture wants {count}. "
            f"Release more, or ask for fewer: --set mixture.{config}={len(found)}"
        )
    rows = [form.read(values, config) for values in found]
    rows.sort(key=lambda row: row.id)
    return random.Random(f"{seed}/{first_name(config)}").sample(rows, count)


def _row(values: Mapping[str, Any], config: str) -> TrainingRow:
    messages = values["messages"]
    sound = (
        isinstance(messages, list)
        and messages
        and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) and "role" in turn for turn in messages)
        and [turn["role"] for turn in messages].count("assistant") == 1
        and messages[-1]["role"] == "assistant"
    )
    name = str(values.get("id") or content_id(messages))
    if not sound:
        raise UserError(
            f"Row {name!r} of configuration '{config}': 'messages' is not a conversation that ends with its only "
            "assistant turn ([{role, content}, ...])."
        )
    turns = tuple({"role": turn["role"], "content": content_of(turn)} for turn in messages)
    kind, category = str(values.get("kind") or "unknown"), str(values.get("category") or "")
    return TrainingRow(id=name, config=config, kind=kind, messages=turns, category=category)


def content_of(turn: Mapping[str, Any]) -> str:
    """What is trained on: with the reasoning, where a release has it beside the answer."""
    reasoning = next((turn[key] for key in get_args(ReasoningKey)[1:] if turn.get(key) is not None), None)
    return str(turn["content"]) if reasoning is None else join(str(reasoning), turn["content"])


CONVERSATIONS = RowForm(("messages",), _row)


def _without(dataset: Path, config: str, missing: str, columns: tuple[str, ...], there: list[str]) -> UserError:
    """The error of a configuration that lacks a column, with those that do not."""
    problem = f"Configuration '{config}' of {dataset} has no column '{missing}'"
    if columns == CONVERSATIONS.columns:
        advice = "Train on a release of this project, or add the conversations under that name."
        return UserError(f"{problem}, only {', '.join(there)}. {advice}")
    shards = {path.parent.name: path for path in sorted(dataset.glob("*/*/train-*.parquet"))}
    fits = [name for name, path in shards.items() if set(columns) <= set(pq.read_schema(path).names)]
    choice = "none of this release's has them: build it again, with saferthoughts release build RUN --with CONFIG"
    if fits:
        choice = f"here {', '.join(fits)} has them: --set 'mixture={{{fits[0]}: 100}}'"
    return UserError(f"{problem}. This objective reads {', '.join(columns)}, and {choice}.")


def _empty(dataset: Path, config: str) -> UserError:
    return UserError(
        f"Configuration '{config}' of {dataset} has no rows in its split 'train'. Choose another to train on."
    )


def _unreadable(dataset: Path, error: Exception, cache: Path) -> UserError:
    """The error of a release that `datasets` could not load: of the disk where it keeps a copy, or of the release."""
    cause = _innermost(error)
    if isinstance(cause, OSError) and cause.errno in ON_WRITING:
        cause.filename = cause.filename or str(cache)
        return UserError(str(system_line(cause)))
    return UserError(f"Dataset '{dataset}' cannot be read as a release: {one_line(str(cause))}")


def _innermost(error: BaseException) -> BaseException:
    """The root cause: `datasets` wraps it in an uninformative error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
