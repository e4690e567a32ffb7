"""What every part of a configuration shares: strict fields, names of variants, and errors that say what does not fit.

Reads YAML files; writes nothing.
"""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipelines.errors import UserError, unknown
from pipelines.settings.keys import HIDDEN, shown
from pipelines.settings.old_names import names_now
from pipelines.settings.overrides import safe_yaml, yaml_problem


class Part(BaseModel):
    """A part of the configuration: an unknown key is an error, and nothing changes after it was read."""

    # An error must not hold what was typed: it may be a key, and tracebacks show it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NamingVariants(Part):
    """A part that names variants: one of before may have their names of before."""

    @model_validator(mode="before")
    @classmethod
    def _names_now(cls, values: Any) -> Any:
        return names_now(values) if isinstance(values, dict) else values


Model = TypeVar("Model", bound=BaseModel)
_SHOWN = 200


def validated(model: type[Model], values: Any, where: str) -> Model:
    """`values` as a `model`.

    Raises:
        UserError: the first thing that does not fit, as "where: key: what (value)"; near names for unknown keys.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            owner: Any = model
            for part in first["loc"][:-1]:
                field = getattr(owner, "model_fields", {}).get(str(part))
                owner = field.annotation if field else None
            if isinstance(owner, type) and issubclass(owner, BaseModel):
                raise unknown(f"key in {where}", str(first["loc"][-1]), owner.model_fields) from error
        value = shown(first["input"], key)
        value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        given = "" if first["type"] == "missing" or value == HIDDEN else f" (it is {value})"
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {f'{key}: ' if key else ''}{message}{given}.") from error


def read_yaml(path: Path, what: str = "") -> Any:
    """A YAML file's content; errors name `what` before the path.

    Raises:
        UserError: it is missing or not YAML, with the line.
    """
    try:
        return safe_yaml(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"There is no file {path}.") from error
    except yaml.YAMLError as error:
        # The error itself quotes the line, which may hold a key.
        raise UserError(f"{what}{path} is not YAML: {yaml_problem(error)}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{what}{path} is not YAML: it is no UTF-8 text (at byte {error.start}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what}{path} is not YAML: {' '.join(str(error).split())}") from error
