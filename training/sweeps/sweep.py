"""Sweeps: one recipe with several values of some of its keys, trained one after another, and a table of results.

Reads training/sweeps/NAME.yaml, or any YAML file of that form:

    recipe: smollm2-135m-cpu          a recipe's name or file, unless the command line names one
    dataset: runs/demo/release        optional, as in a recipe
    set: {epochs: 2}                  optional: keys of the recipe that are other for all members
    grids:                            by name; each is every combination of its keys' values
      learning-rate: {learning_rate: [1.0e-5, 1.0e-4]}

Members whose recipes are the same are one member. `training.sweeps.sweep_run` trains them.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipelines.errors import UserError, unknown
from pipelines.settings.old_names import first_name
from pipelines.settings.overrides import Setting
from pipelines.settings.parts import Part, read_yaml, validated
from training.mixtures.mixture_rows import Blend, load_blend
from training.recipes.recipe import Recipe, load_recipe, mixture_now

SWEEPS = Path(__file__).parent

# A grid's keys, each with the values that it takes.
Grid = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]


class Sweep(Part):
    """A sweep's file."""

    recipe: str | None = None
    dataset: str | None = None
    set: Annotated[dict[str, Any], Field(default_factory=dict)]
    grids: Annotated[dict[str, Grid], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Member:
    """One training of a sweep: its folder's name, its recipe, and for each grid that it is in the values there.

    `older` is the folder's name in a sweep of before, by the variants' first names.
    """

    name: str
    recipe: Recipe
    grids: Mapping[str, Mapping[str, Any]]
    older: str


def load_sweep(name_or_path: str) -> Sweep:
    """Read a sweep by its name or file.

    Raises:
        UserError: there is none, or the file is not of that form.
    """
    known = {path.stem: path for path in sorted(SWEEPS.glob("*.yaml"))}
    path = known.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise unknown("sweep", name_or_path, known)
    return validated(Sweep, read_yaml(path), f"sweep {path.name}")


def members_of(
    sweep: Sweep, recipe: str | None, dataset: str | None, student: str | None, settings: Sequence[Setting]
) -> list[Member]:
    """Every member, each recipe once, in the file's order.

    Args:
        recipe: A recipe's name or file, in place of the sweep's.
        dataset: In place of the sweep's.
        student: In place of the recipe's.
        settings: What `--set` says, laid over every member after the sweep's `set`.

    Raises:
        UserError: no recipe or dataset is named, or a member's recipe is not right.
    """
    base = recipe or sweep.recipe
    if base is None:
        raise UserError("The sweep names no recipe. Give one: saferthoughts train RECIPE --sweep FILE ...")
    found: dict[str, Member] = {}
    for grid, values in _combinations(sweep):
        made = load_recipe(base, [*_settings(sweep.set), *_settings(values), *settings])
        chosen = {"dataset": dataset or sweep.dataset or made.dataset, "student": student or made.student}
        made = made.model_copy(update={**chosen, "mixture": _plain(made.mixture)})
        key = made.model_dump_json()
        known = found.get(key)
        if known is None:
            name = _name(values)
            taken = sum(member.name.partition("~")[0] == name for member in found.values())
            again = f"~{taken + 1}" if taken else ""
            found[key] = Member(f"{name}{again}", made, {grid: values}, f"{_name(_first_names(values))}{again}")
        else:
            found[key] = replace(known, grids={**known.grids, grid: known.grids.get(grid, values)})
    if None in {member.recipe.dataset for member in found.values()}:
        raise UserError("What is the sweep trained on? Give --dataset, a release folder or ORG/NAME@VERSION.")
    return list(found.values())


def _settings(values: Mapping[str, Any]) -> list[Setting]:
    return [Setting(key, value) for key, value in values.items()]


def _plain(mixture: dict[str, int] | str | Blend) -> dict[str, int] | str | Blend:
    """A named mixture of the release's rows alone as those rows: it is the same training under both names."""
    blend = load_blend(mixture)
    return mixture if blend.further else dict(blend.release)


def _combinations(sweep: Sweep) -> Iterator[tuple[str, dict[str, Any]]]:
    for grid, keys in sweep.grids.items():
        for values in itertools.product(*keys.values()):
            chosen = dict(zip(keys, values, strict=True))
            yield grid, chosen | ({"mixture": mixture_now(chosen["mixture"])} if "mixture" in chosen else {})


def _first_names(value: Any) -> Any:
    return {first_name(key): _first_names(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def _name(values: Mapping[str, Any]) -> str:
    """A folder name made of the values."""
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(f"{key}={shown(value)}" for key, value in values.items()))[:120]


def shown(value: Any) -> str:
    """A value in a few characters: improved:1000+benign:100 for a mixture."""
    if isinstance(value, Mapping):
        return "+".join(f"{key}:{shown(one)}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "+".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
