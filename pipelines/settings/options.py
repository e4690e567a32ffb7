"""Options of a command to a run's configuration: what is given changes that, and everything else stays.

Reads users' files of settings, teachers and wordings; writes nothing. Options win over a file, `--set` wins over both.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipelines.errors import UserError
from pipelines.settings.config import RunConfig, paired_with
from pipelines.settings.judge import load_judges
from pipelines.settings.local_judges import with_folders
from pipelines.settings.old_names import typed_name
from pipelines.settings.overrides import Setting, key_and_value, merge, override, settings_of
from pipelines.settings.parts import read_yaml, validated
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import Teacher, load_teachers, teachers_in

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may say of a run; None means that it said nothing.

    `name` is what a teacher at `base_url` is called. `also` has further keys of run.yaml, dotted, with their values.
    """

    config: Path | None = None
    source: str | None = None
    kind: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
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
    name: str | None = None
    also: Mapping[str, Any] = field(default_factory=dict)

    def given(self) -> bool:
        """Whether the command line said anything at all."""
        return self != Options()

    def draws(self) -> bool:
        """Whether it said anything of the prompts that are drawn."""
        return (
            bool(self.columns or self.files)
            or (self.source, self.kind, self.harmful, self.benign, self.seed) != (None,) * 5
        )


def configured(options: Options, base: RunConfig | None = None, asks: bool = True) -> RunConfig:
    """The configuration that the options ask for.

    Args:
        base: What a run has, which stays where nothing else is said; None for a new run.
        asks: Whether the run generates, and so needs a teacher.

    Raises:
        UserError: a file or value that does not fit, an unknown teacher or variant, or no teacher.
    """
    own = teachers_in(options.teachers) if options.teachers else {}
    teachers = {**load_teachers(), **own}
    values: dict[str, Any] = {} if base is None else base.model_dump(mode="json")
    if options.config is not None:
        values = merge(values, _from_file(options.config), RunConfig)
    for part in ("teachers", "judge_teachers"):
        # A file that is given now wins over the entries that the run has kept of an earlier one.
        for name in (values.get(part) or {}).keys() & own.keys():
            values[part][name] = own[name].model_dump(mode="json")
    teacher = options.teacher
    if options.base_url or options.model or options.api_key_env:
        teacher, entry = _at_endpoint(options, base, teachers)
        values.setdefault("teachers", {})[teacher] = entry
        own = {**own, teacher: validated(Teacher, entry, "the options")}
        teachers |= own
    elif options.name is not None:
        raise UserError("--name says what the teacher at --base-url is called; give both, or --teacher NAME.")
    settings = [_named_now(one) for one in (*_flags(options, teacher, base), *settings_of(options.sets))]
    named = _known(values, teachers)
    _fill_in(values, named)
    reached = [setting for setting in settings if setting.key.startswith("teachers.")]
    # A teacher of that name may answer, judge or do both: a setting holds wherever it is asked.
    judging = [Setting(f"judge_{one.key}", one.value, one.text) for one in reached]
    values = override(values, [*settings, *judging], RunConfig, named)
    values = with_folders(values)
    where = str(options.config) if options.config else "the options"
    found = resolve(validated(RunConfig, values, where), teachers, asks)
    _check_asked(found, values, reached)
    return found


# Keys that hold the names of variants.
_NAMING = ("variants", "benign_variant", "repair.variants", "checks.variants", "selection.variants")


def _named_now(setting: Setting) -> Setting:
    """The setting with variants by their names now, with a line for whoever typed another."""
    part, _, name = setting.key.partition(".")
    if part == "instructions" and name:
        return Setting(f"{part}.{typed_name(name)}", setting.value, setting.text)
    value = setting.value
    if setting.key in _NAMING and isinstance(value, str):
        value = typed_name(value)
    elif setting.key in _NAMING and isinstance(value, list | tuple):
        value = [typed_name(one) if isinstance(one, str) else one for one in value]
    return Setting(setting.key, value, setting.text)


def _from_file(path: Path) -> dict[str, Any]:
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path} does not map keys to values, as a run.yaml does.")
    return values


def _flags(options: Options, teacher: str | None, base: RunConfig | None) -> list[Setting]:
    if options.files and options.source is not None:
        raise UserError("Give either --prompts or files of harmful, benign and jailbreak prompts, not both.")
    general = options.general_teacher
    if base is not None and teacher is not None and general is None and teacher != base.roles.reasoning:
        # One teacher for all stays one for all.
        alone = base.roles.general in (None, base.roles.reasoning, paired_with(base.roles.reasoning))
        general = paired_with(teacher) if alone else None
    values: dict[str, Any] = {
        "prompts.source": options.source,
        # One way of naming prompts takes the other's place.
        "prompts.files": dict(options.files) or ({} if options.source is not None else None),
        "prompts.kind": options.kind,
        "prompts.columns": dict(options.columns) or None,
        "prompts.harmful": options.harmful,
        "prompts.benign": options.benign,
        "seed": options.seed,
        "variants": list(options.variants) or None,
        "judging.judges": list(options.judges) or None,
        "roles.reasoning": teacher,
        "roles.general": general,
        **dict(
            text_file(text, "instructions.{}", "--instruction", "improved=my-wording.txt")
            for text in options.instructions
        ),
        **options.also,
    }
    return [Setting(key, value) for key, value in values.items() if value is not None]


def _known(values: Mapping[str, Any], teachers: Mapping[str, Teacher]) -> dict[str, dict[str, dict[str, Any]]]:
    """Entries by name that a setting may change a part of: the run's first, then the known ones."""
    kept = {part: values.get(part) or {} for part in ("teachers", "judge_teachers")}
    shipped = _dumped(teachers)
    return {
        "teachers": {**shipped, **kept["judge_teachers"], **kept["teachers"]},
        "judge_teachers": {**shipped, **kept["teachers"], **kept["judge_teachers"]},
        "judges": _dumped(load_judges()),
    }


def _dumped(entries: Mapping[str, BaseModel]) -> dict[str, dict[str, Any]]:
    return {name: entry.model_dump(mode="json") for name, entry in entries.items()}


def _fill_in(values: dict[str, Any], named: Mapping[str, Mapping[str, Any]]) -> None:
    """Complete the entries of a file that change a part of a known one."""
    for part, known in named.items():
        entries = values.get(part)
        if isinstance(entries, dict):
            shape = RunConfig.model_fields[part].annotation
            values[part] = merge({name: known[name] for name in entries if name in known}, entries, shape)


def _check_asked(config: RunConfig, values: Mapping[str, Any], reached: Iterable[Setting]) -> None:
    """Refuse a setting of a teacher that nobody asks: it would change nothing."""
    asked = {*config.teachers, *config.judge_teachers}
    for setting in reached:
        rest = setting.key.removeprefix("teachers.")
        name = max((one for one in values["teachers"] if f"{rest}.".startswith(f"{one}.")), key=len)
        if name not in asked:
            raise UserError(
                f"{setting}: this run asks no teacher '{name}', so this would change nothing. It asks: "
                f"{', '.join(sorted(asked)) or 'nobody'}."
            )


def text_file(text: str, key: str, option: str, example: str) -> tuple[str, str]:
    """`NAME=FILE` of an option as the key that it sets, with the name in its place, and the file's text.

    Raises:
        UserError: it is not of that form, or the file cannot be read.
    """
    name, file = key_and_value(text, option, example)
    try:
        return key.format(name), Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option} {text}: the file cannot be read: {error}") from error


def _at_endpoint(
    options: Options, base: RunConfig | None, teachers: Mapping[str, Teacher]
) -> tuple[str, dict[str, Any]]:
    """The name and the entry of the teacher that --base-url, --model and --api-key-env describe.

    Where the run's teacher is at an endpoint, they change what they name of it.
    """
    given = {"base_url": options.base_url, "model": options.model, "api_key_env": options.api_key_env}
    given = {key: value for key, value in given.items() if value is not None}
    present = None if base is None or base.roles.reasoning is None else base.teachers.get(base.roles.reasoning)
    if base is not None and present is not None and present.base_url is not None:
        same = options.model in (None, present.model) and options.teacher in (None, base.roles.reasoning)
        if same and options.name in (None, base.roles.reasoning):
            return str(base.roles.reasoning), {**present.model_dump(mode="json"), **given}
        given = {"base_url": present.base_url, "model": present.model, "api_key_env": present.api_key_env, **given}
    entry = teacher_at(given.get("base_url"), given.get("model"), given.get("api_key_env"))
    name = options.name or options.teacher or name_of(entry.model, () if base is None else base.teachers, teachers)
    return name, entry.model_dump(mode="json")


def name_of(model: str, taken: Iterable[str] = (), shipped: Iterable[str] = ()) -> str:
    """What the teacher of a model is called: the last part of the model's name, made plain.

    A name of the shipped teachers would change who judges under it, so it gets an addition.
    """
    name = _PLAIN.sub("-", model.rstrip("/").rpartition("/")[2]).strip(".-_")[:64] or "endpoint"
    return f"{name}-endpoint" if name in set(shipped) - set(taken) else name


def teacher_at(base_url: str | None, model: str | None, api_key_env: str | None) -> Teacher:
    """The teacher at an endpoint.

    Raises:
        UserError: the endpoint or the model is missing, or one of the three cannot be what it should.
    """
    fields = {"base_url": base_url, "model": model, "api_key_env": api_key_env}
    # Before what is missing: a key that was typed must be refused in any case.
    checked = validated(Teacher, {**fields, "base_url": base_url or "http://x", "model": model or "x"}, "the options")
    if not (base_url and model):
        raise UserError("--base-url and --model go together: the endpoint, and the model to ask for there.")
    return checked
