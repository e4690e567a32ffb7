"""`--set key=value`: the one parser, for run.yaml, recipes, protocols of evaluation, sweeps and options of vLLM.

Reads and writes nothing. A key is dotted and reaches into nested parts; the value is safe YAML. Which keys there are
follows from a shape: a pydantic model (of run.yaml, of a recipe), or a nested mapping of the values that there are:

    override(values, settings_of(["prompts.harmful=3"]), RunConfig)
"""

import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel
from yaml.constructor import SafeConstructor

from pipelines.errors import UserError, unknown
from pipelines.settings.keys import HIDDEN, is_secret_field, looks_like_key

# Aliases may multiply what a file spells out; beyond this it is a mistake, or an attack.
_MOST_NODES = 200_000
# libyaml's composer calls itself for each level, on a stack that nobody bounds.
_DEEP = 100
# YAML 1.1 reads 1e-5, which has no dot, as text.
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")

Named = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """One `key=value`. `text` is the value as typed, None where a value was not typed but follows from an option."""

    key: str
    value: Any
    text: str | None = None

    def __str__(self) -> str:
        text = str(self.value) if self.text is None else self.text
        hidden = is_secret_field(self.key.rpartition(".")[2]) or looks_like_key(text)
        value = HIDDEN if hidden else text[:200]
        return f"{self.key}: {value}" if self.text is None else f"--set {self.key}={value}"


def key_and_value(text: str, option: str = "--set", example: str = "seed=1") -> tuple[str, str]:
    """`key=value` taken apart.

    Raises:
        UserError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        got = HIDDEN if looks_like_key(text) else f"'{text[:200]}'"
        raise UserError(f"{option} takes key=value, such as {option} {example}; it got {got}.")
    return key.strip(), value


def settings_of(texts: Iterable[str], example: str = "seed=1") -> list[Setting]:
    """Each text as a setting, its value as YAML reads it.

    Raises:
        UserError: one is not of the form key=value, or its value is not YAML.
    """
    found = []
    for text in texts:
        key, typed = key_and_value(text, example=example)
        try:
            value = safe_yaml(typed)
        except yaml.YAMLError as error:
            setting = Setting(key, None, typed)
            raise UserError(
                f"{setting}: the value is not YAML: {yaml_problem(error)}. Quote a text that holds marks of YAML: "
                f"--set '{key}=\"...\"'."
            ) from None
        if isinstance(value, str) and value == typed.strip() and _EXPONENT.fullmatch(value):
            value = float(value)
        found.append(Setting(key, value, typed))
    return found


def safe_yaml(text: str, constructor: type[SafeConstructor] = SafeConstructor) -> Any:
    """A YAML document as plain values: no tags of Python's, no alias to itself, no growth beyond all bounds.

    Args:
        constructor: What makes values of it; a stricter one may refuse more.

    Raises:
        yaml.YAMLError: it is not YAML, or has one of these.
    """
    try:
        node = yaml_node(text)
        _count(node, {}, ())
        return None if node is None else constructor().construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None
    except (ValueError, OverflowError) as error:  # a date that is none, an integer of a million digits
        raise yaml.YAMLError(str(error)) from None


def yaml_node(text: str) -> Any:
    """A YAML document's node, None where it is empty: by libyaml, ten times as fast as PyYAML's own parser.

    What libyaml does not take is read by that one, for its words; so is what is nested deep, where libyaml would crash.

    Raises:
        yaml.YAMLError, RecursionError, ValueError: it is not YAML, or nested too deep.
    """
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, fast):
            begins = isinstance(event, yaml.CollectionStartEvent)
            depth += begins - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEP:
                return yaml.compose(text, yaml.SafeLoader)
        return yaml.compose(text, fast)
    except (yaml.YAMLError, ValueError):
        return yaml.compose(text, yaml.SafeLoader)


def _count(node: Any, counted: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for, its aliases followed."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in above:
        raise yaml.YAMLError("an alias refers to what it stands in")
    if id(node) not in counted:
        inner = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        counted[id(node)] = 1 + sum(_count(part, counted, (*above, id(node))) for part in inner)
    if counted[id(node)] > _MOST_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {_MOST_NODES:,} values")
    return counted[id(node)]


def yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the text itself, which may hold a key."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        return f"{' '.join(error.problem.split())}{where}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds a character that YAML does not take (at {error.position})"
    return " ".join(str(error).split())


def override(values: Mapping[str, Any], settings: Iterable[Setting], shape: Any, named: Named | None = None) -> Any:
    """The values with settings laid over them; the values given are not changed.

    Args:
        settings: What changes, in order.
        shape: A pydantic model, or a mapping whose keys (and those of the mappings in it) are the ones there are.
        named: By key of a mapping of named entries, such as "teachers": entries that are known and not among the
            values yet. A setting that reaches into one begins with it.

    Raises:
        UserError: an unknown key, or a key that reaches into what is no mapping.
    """
    found = _copied(values)
    for setting in settings:
        _put(found, setting.key, shape, setting, named or {}, ())
    return found


def merge(values: Mapping[str, Any], over: Mapping[str, Any], shape: Any) -> dict[str, Any]:
    """One nested mapping laid over another: parts of a model and named entries key by key, all else as a whole."""
    found: dict[str, Any] = _copied(values)
    for key, value in over.items():
        found[key] = _merged(found.get(key), value, _inner(shape, key))
    return found


def _merged(old: Any, new: Any, shape: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict) and _has_parts(shape):
        return merge(old, new, shape)
    return _copied(new)


def _put(values: dict[str, Any], key: str, shape: Any, setting: Setting, named: Named, path: tuple[str, ...]) -> None:
    entries = named.get(".".join(path), {})
    part, rest = _split(key, shape, [*values, *entries])
    choices = _keys(shape)
    if choices is not None and part not in choices:
        within = f" of {'.'.join(path)}" if path else ""
        where = "" if setting.text is None else " in --set"
        raise UserError(f"{unknown(f'key{within}{where}', part, choices)} It is in {setting}.")
    inner = _inner(shape, part)
    if part not in values and part in entries:
        values[part] = _copied(entries[part])
    if not rest:
        values[part] = _merged(values.get(part), _fitting(setting, inner), inner)
        return
    below = values.get(part)
    if below is None:
        below = values[part] = {}
    if not isinstance(below, dict) or (_alternatives(inner) and not _is_mapping(inner)):
        whole = ".".join((*path, part))
        raise UserError(
            f"'{setting.key}' cannot be set ({setting}): '{whole}' is no mapping. Set '{whole}' as a whole."
        )
    _put(below, rest, inner, setting, named, (*path, part))


def _split(key: str, shape: Any, known: Iterable[str]) -> tuple[str, str]:
    """The first name of a dotted key, and the rest. A name may hold dots: the longest known one wins."""
    fitting = [name for name in known if key == name or key.startswith(f"{name}.")]
    if fitting:
        part = max(fitting, key=len)
        return part, key[len(part) + 1 :]
    entry = _entry(shape)
    if entry is not None and _keys(entry) is not None:
        # A new entry: its name ends where a key of an entry follows.
        pieces = key.split(".")
        for at in range(1, len(pieces)):
            if pieces[at] in (_keys(entry) or ()):
                return ".".join(pieces[:at]), ".".join(pieces[at:])
    elif entry is not None and not _is_mapping(entry):
        return key, ""
    part, _, rest = key.partition(".")
    return part, rest


def _alternatives(shape: Any) -> list[Any]:
    """The types that an annotation allows, None left out; none for Any and for nested mappings of values."""
    if isinstance(shape, Mapping) or shape is Any or shape is None:
        return []
    origin = typing.get_origin(shape)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(shape)[0])
    if origin in (typing.Union, types.UnionType):
        return [one for part in typing.get_args(shape) for one in _alternatives(part)]
    return [] if shape is type(None) else [shape]


def _model(shape: Any) -> type[BaseModel] | None:
    return next((one for one in _alternatives(shape) if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _entry(shape: Any) -> Any:
    """What the values of a free mapping are; None where the shape is no free mapping."""
    free = next((one for one in _alternatives(shape) if typing.get_origin(one) is dict), None)
    return None if free is None else typing.get_args(free)[1]


def _keys(shape: Any) -> list[str] | None:
    """The keys that there are; None where any may be."""
    if isinstance(shape, Mapping):
        return list(shape)
    model = _model(shape)
    return None if model is None or _entry(shape) is not None else list(model.model_fields)


def _inner(shape: Any, part: str) -> Any:
    if isinstance(shape, Mapping):
        return shape.get(part)
    model, entry = _model(shape), _entry(shape)
    if entry is not None:
        return entry
    if model is None or part not in model.model_fields:
        return Any
    return model.model_fields[part].annotation


def _is_mapping(shape: Any) -> bool:
    return shape is Any or isinstance(shape, Mapping) or _model(shape) is not None or _entry(shape) is not None


def _has_parts(shape: Any) -> bool:
    """Whether a mapping of that shape is changed key by key: a model, or entries by name that are models."""
    if isinstance(shape, Mapping):
        return True
    entry = _entry(shape)
    return _model(shape) is not None if entry is None else _model(entry) is not None


def _fitting(setting: Setting, shape: Any) -> Any:
    """The value; as it was typed where a text is wanted and YAML made a number, a date or a truth value of it."""
    allowed = _alternatives(shape)
    odd = setting.value is not None and not isinstance(setting.value, str | dict | list)
    if setting.text is not None and odd and str in allowed and not {int, float, bool} & set(allowed):
        return setting.text.strip()
    return setting.value


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value
