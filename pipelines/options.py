"""Flags to a run's configuration: a file first, then single values on top, then the names checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipelines.config import RunConfig, Teacher, load_judges, load_teachers, read_yaml, resolve, validated
from pipelines.errors import UserError


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may say of a new run; None means that it said nothing."""

    config: Path | None = None
    source: str | None = None
    kind: str | None = None
    harmful: int | None = None
    benign: int | None = None
    seed: int | None = None
    variants: tuple[str, ...] = ()
    teacher: str | None = None
    general_teacher: str | None = None
    teachers: Path | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    instructions: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    def given(self) -> bool:
        """Whether the command line said anything at all."""
        return self != Options()


def configured(options: Options) -> RunConfig:
    """The configuration that the options ask for; flags win over the file, `--set` wins over both.

    Raises:
        UserError: a file or value that does not fit, an unknown teacher or variant.
    """
    where = str(options.config) if options.config else "the options"
    values = (read_yaml(options.config) or {}) if options.config else {}
    if not isinstance(values, dict):
        raise UserError(f"{options.config} does not map keys to values, as a run.yaml does.")
    teachers = load_teachers(options.teachers)
    teacher = options.teacher
    if options.base_url or options.model or options.api_key_env:
        teacher = teacher or "flags"
        teachers[teacher] = teacher_at(options.base_url, options.model, options.api_key_env)
        values.setdefault("teachers", {}).pop(teacher, None)
    flags: list[tuple[str, Any]] = [
        ("prompts.source", options.source),
        ("prompts.kind", options.kind),
        ("prompts.harmful", options.harmful),
        ("prompts.benign", options.benign),
        ("seed", options.seed),
        ("variants", list(options.variants) or None),
        ("judging.judges", list(options.judges) or None),
        ("roles.reasoning", teacher),
        ("roles.general", options.general_teacher or teacher),
    ]
    flags += [_instruction(text) for text in options.instructions]
    flags += [_parsed(text) for text in options.sets]
    for key, value in flags:
        if value is not None:
            _put(values, key, value)
    # A part of an entry, such as `--set teachers.deepseek.in_flight=8`, changes that part of the known one.
    _fill_in(values.get("teachers"), teachers)
    _fill_in(values.get("judge_teachers"), teachers)
    _fill_in(values.get("judges"), load_judges())
    return resolve(validated(RunConfig, values, where), teachers)


def _fill_in(entries: Any, known: Mapping[str, BaseModel]) -> None:
    if isinstance(entries, dict):
        for name, entry in entries.items():
            if name in known and isinstance(entry, dict):
                entries[name] = {**known[name].model_dump(mode="json"), **entry}


def _instruction(text: str) -> tuple[str, str]:
    """`variant=FILE` as the key of that variant's wording and the file's text."""
    name, file = key_and_value(text, "--instruction", "improved=my-wording.txt")
    try:
        return f"instructions.{name}", Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--instruction {text}: the file cannot be read: {error}") from error


def teacher_at(base_url: str | None, model: str | None, api_key_env: str | None) -> Teacher:
    """The teacher at an endpoint.

    Raises:
        UserError: the endpoint or the model is missing.
    """
    if not (base_url and model):
        raise UserError("--base-url and --model go together: the endpoint, and the model to ask for there.")
    fields = {"base_url": base_url, "model": model, "api_key_env": api_key_env}
    return validated(Teacher, fields, "the options")


def key_and_value(text: str, option: str = "--set", example: str = "seed=1") -> tuple[str, str]:
    """`key=value` taken apart.

    Raises:
        UserError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"{option} takes key=value, such as {option} {example}; it got '{text}'.")
    return key, value


def _parsed(text: str) -> tuple[str, Any]:
    """`key=value`, the value as YAML reads it."""
    key, value = key_and_value(text)
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {text}: the value is not YAML: {' '.join(str(error).split())}") from error


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; what stands in the way of one must be a mapping."""
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"'{key}' cannot be set: '{part}' is {inner!r}, not a mapping.")
        values = inner
    values[last] = value
