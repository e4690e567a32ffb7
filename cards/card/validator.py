"""Is a card one that the Hub takes: its front matter checked here, without asking the Hub.

Reads a card's text and, where there is one, the folder that it describes; writes nothing. `release build` and `publish`
check every card that leaves; `verify` checks every card that comes.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipelines.documents import yaml_of
from pipelines.errors import UserError
from pipelines.settings.licenses import LICENSES

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
# Of the Hub's task categories, those that rows of text can serve.
_TASKS = ("text-generation", "text-classification", "question-answering", "reinforcement-learning", "other")
_FIELDS = ("text", "checkbox", "country", "date_picker", "select")
_KNOWN = (
    *("pretty_name", "license", "license_name", "license_link", "language", "task_categories", "size_categories"),
    *("tags", "configs", "dataset_info", "extra_gated_prompt", "extra_gated_fields", "extra_gated_heading"),
    *("extra_gated_button_content", "source_datasets", "annotations_creators", "language_creators"),
    *("library_name", "base_model", "datasets", "pipeline_tag", "model-index"),
)


class _Files(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    split: str = Field(pattern=r"^\w+(\.\w+)*$")
    path: str


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    config_name: str
    description: str = ""
    default: bool = False
    data_files: list[_Files]


_CONFIGS = TypeAdapter(list[_Config])


class _Strict(yaml.constructor.SafeConstructor):
    """YAML that rejects duplicate keys; the Hub silently keeps the last one."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{twice}'", node.start_mark)
    return dict(loader.construct_mapping(node, deep=True))


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)  # type: ignore[type-var]


def front_matter_of(card: str) -> dict[str, Any]:
    """The front matter of a card.

    Raises:
        ValueError: it has none, or one that is not a mapping, or holds a key twice.
    """
    if not card.startswith("---\n"):
        raise ValueError("the card does not begin with front matter (---)")
    text, end, _ = card.removeprefix("---\n").partition("\n---\n")
    if not end:
        raise ValueError("the front matter has no end (---)")
    try:
        found = yaml_of(text, "the front matter", _Strict)
    except UserError as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict):
        raise ValueError("the front matter is not a mapping")
    return found


def faults_of(card: str, folder: Path | None = None) -> list[str]:
    """What is wrong with a dataset's card, a line each; with a folder, whether its configs find their files too."""
    try:
        front = front_matter_of(card)
    except ValueError as error:
        return [str(error)]
    faults = [f"unknown key '{key}' in the front matter" for key in front if key not in _KNOWN]
    faults += _license(front)
    faults += [f"{key} is missing" for key in ("language", "size_categories", "configs") if not front.get(key)]
    for key, choices in (("size_categories", _SIZES), ("task_categories", _TASKS)):
        faults += [f"{key}: '{value}' is none of {', '.join(choices)}" for value in _listed(front, key, choices)]
    faults += [
        f"language: '{value}' is no ISO 639 code of two or three letters"
        for value in front.get("language") or ()
        if not (isinstance(value, str) and value.isalpha() and value.islower() and len(value) in (2, 3))
    ]
    faults += [f"tags: {value!r} is not a text" for value in front.get("tags") or () if not isinstance(value, str)]
    faults += [
        f"extra_gated_fields: '{name}' is {kind!r}, not one of {', '.join(_FIELDS)}"
        for name, kind in (front.get("extra_gated_fields") or {}).items()
        if (kind.get("type") if isinstance(kind, dict) else kind) not in _FIELDS
    ]
    body = card.partition("\n---\n")[2]
    faults += [f"'{mark}' is left over from the template" for mark in ("{{", "}}", "{%", "%}") if mark in body]
    return faults + _configs(front.get("configs"), folder)


def check_card(card: str, folder: Path | None = None) -> None:
    """Refuse a card that the Hub would not take, or would misread.

    Raises:
        UserError: with everything that is wrong.
    """
    faults = faults_of(card, folder)
    if faults:
        raise UserError(f"The card would not do on the Hub: {'; '.join(faults)}. Mend `release` in run.yaml.")


def _license(front: dict[str, Any]) -> list[str]:
    license_id = front.get("license")
    if license_id not in LICENSES:
        return [f"license: the Hub knows no '{license_id}'"]
    if license_id == "other" and not front.get("license_name"):
        return ["license: 'other' needs license_name"]
    return []


def _listed(front: dict[str, Any], key: str, choices: tuple[str, ...]) -> list[Any]:
    values = front.get(key) or ()
    return [value for value in (values if isinstance(values, list | tuple) else [values]) if value not in choices]


def _configs(configs: Any, folder: Path | None) -> list[str]:
    """Faults of `configs`: of what `datasets` takes, our cards have one form; and by looking for the files."""
    if not configs:
        return []
    try:
        found = _CONFIGS.validate_python(configs)
    except ValidationError as error:
        first = error.errors()[0]
        return [f"configs: {'.'.join(map(str, first['loc']))}: {first['msg']}"]
    names = [config.config_name for config in found]
    patterns = [(config.config_name, files.path) for config in found for files in config.data_files]
    faults = [f"configs: duplicate name '{name}'" for name in sorted({name for name in names if names.count(name) > 1})]
    if folder is not None:
        faults += [
            f"configs: {name}: no file is {pattern}" for name, pattern in patterns if not any(folder.glob(pattern))
        ]
    return faults
