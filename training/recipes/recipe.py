"""Recipes: what to train, on how many rows of which variant, and how.

Reads training/recipes/<model>/<name>.yaml, called `<model>-<name>` on the command line, or any YAML file of that form;
`extends: RECIPE` takes what another recipe has for every key that a file leaves out; `--set key=value` lays single
values over it. Writes nothing. Defaults stand here and nowhere else.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from pipelines.errors import UserError, unknown
from pipelines.settings.old_names import keys_now, typed_name
from pipelines.settings.overrides import Setting, override
from pipelines.settings.parts import read_yaml
from training.mixtures.mixture_rows import Blend, load_blend
from training.recipes.objective_settings import Dpo, Grpo, Kto, Rm, objective_names

RECIPES = Path(__file__).parent
TEMPLATES = Path(__file__).parents[1] / "chat_templates"

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Lora(BaseModel):
    """Low-rank adapters on every linear layer, merged into the weights at the end."""

    model_config = _STRICT

    r: PositiveInt
    alpha: PositiveInt


class Recipe(BaseModel):
    """One way of training a student. Sizes are in rows and tokens; `batch_size` is per process.

    What has no key is as in the study: AdamW without decay, no warm-up, gradients clipped at norm 1.0.
    """

    model_config = _STRICT

    mixture: Annotated[dict[str, PositiveInt], Field(min_length=1)] | str | Blend
    """Rows to draw from each configuration of the release, e.g. {improved: 60, benign: 40}, or a mixture's name or file
    (training/mixtures), e.g. safety1k+benign100, or what such a file holds."""

    objective: str = "sft"
    """What is learned from the rows, one of training/objectives. Each reads rows of its own shape, and has its settings
    in the section of its name."""

    dpo: Dpo = Dpo()
    kto: Kto = Kto()
    rm: Rm = Rm()
    grpo: Grpo = Grpo()

    student: str | None = None
    """A checkpoint's folder, or a model on the Hub (ORG/NAME, ORG/NAME@REVISION); null fetches the bundled student."""

    dataset: str | None = None
    """A release folder, or ORG/NAME@VERSION on the Hub, where `--dataset` names none."""

    chat_template: str | None = None
    """A file of training/chat_templates, or a path; null uses the student's own, or TRL's training form of it."""

    epochs: PositiveInt = 1
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-6
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    effective_batch: PositiveInt | None = None
    """Rows a step over all processes, packed or not: `gradient_accumulation` then follows from it."""

    max_length: Annotated[int, Field(ge=16)] = 4096
    """Tokens a row may have, prompt and markers included. Nothing is ever cut."""

    overlong_share: Annotated[float, Field(ge=0, lt=1)] = 0
    """The share of rows that may be longer than that, and are then left out and counted; more of them stop the run."""

    loss_on: Literal["completion", "all"] = "completion"
    """Which tokens are learned: what the assistant writes, or all of the row, the prompt's too, as the study's script
    does."""

    benign_kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the student as it was, KL(before || now), on benign rows' labelled tokens, beside
    the loss: helping stays as it is, as in ThinkSafe. 0 leaves it out; without adapters a second model is held."""

    lora: Lora | None = None
    quantize: Literal["4bit"] | None = None
    """Load the frozen weights in four bits, under adapters (QLoRA); needs a GPU and bitsandbytes."""

    packing: bool = False
    """Lay several rows into one sequence of `max_length`, each attending to itself alone."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    bf16: bool = True
    """Compute in bfloat16 over float32 weights, and save bfloat16."""

    gradient_checkpointing: bool = True
    attention: Literal["sdpa", "flash_attention_2"] | None = None
    """The attention's implementation; null is transformers' own choice."""

    liger: bool = False
    """Liger's fused kernels, which never hold the logits of a whole batch; needs a GPU and liger-kernel."""

    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10
    """Save weights and optimizer that often, to go on from after a crash; 0 never does."""

    stop_when_diverging: bool = True
    """End the training at a loss that is no number, or ten times the lowest before it and above 5."""

    report_to: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"

    @field_validator("mixture", mode="before")
    @classmethod
    def _names_now(cls, mixture: Any) -> Any:
        return keys_now(mixture) if isinstance(mixture, dict) else mixture

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if self.quantize and self.lora is None:
            raise ValueError("quantize needs lora: weights in four bits cannot be trained themselves")
        if self.quantize and self.objective == "rm":
            raise ValueError("quantize=4bit is not for objective rm: take lora alone (--set quantize=null)")
        if self.objective not in objective_names():
            raise unknown("objective", self.objective, objective_names())
        if self.objective != "sft":
            odd = {"packing=true": self.packing, "liger=true": self.liger, "loss_on=all": self.loss_on == "all"}
            odd[f"benign_kl={self.benign_kl:g}"] = self.benign_kl > 0
            for setting in (name for name, is_set in odd.items() if is_set):
                raise ValueError(f"{setting} is for objective sft, and this is {self.objective}")
        if self.benign_kl and (self.packing or self.liger):
            raise ValueError("benign_kl needs the logits of single rows: set packing=false and liger=false")
        if self.objective != "grpo" and self.grpo.judged:
            raise ValueError(f"grpo.judges (--reward-judge) is for objective grpo, and this is {self.objective}")
        if self.objective == "kto" and self.batch_size < 2:
            raise ValueError("kto needs batch_size of at least 2: it compares a row's response with another row's")
        return self

    @property
    def section(self) -> dict[str, Any]:
        """The settings of the objective's own, none for sft."""
        own = getattr(self, self.objective, None)
        return own.model_dump(mode="json") if isinstance(own, BaseModel) else {}

    def values(self) -> dict[str, Any]:
        """Every key with its value, without the sections of other objectives."""
        return self.model_dump(mode="json", exclude=set(objective_names()) - {self.objective})

    def accumulation(self, processes: int, rows_per_sequence: float = 1.0) -> int:
        """Batches a step on each process, so that the effective batch stays what it is.

        Args:
            processes: How many train together.
            rows_per_sequence: Packed rows are counted as rows; the effective batch is then met as nearly as whole
                batches can.

        Raises:
            UserError: the effective batch is no multiple of what the processes take at once.
        """
        if self.effective_batch is None:
            return self.gradient_accumulation
        at_once = self.batch_size * processes
        if self.packing:
            return max(1, round(self.effective_batch / rows_per_sequence / at_once))
        if self.effective_batch % at_once:
            fitting = [n for n in range(1, self.effective_batch + 1) if self.effective_batch % (n * processes) == 0]
            raise UserError(
                f"effective_batch {self.effective_batch} is no multiple of batch_size {self.batch_size} times "
                f"{processes} processes. Choose batch_size from: {', '.join(map(str, fitting)) or 'none fits them'}."
            )
        return self.effective_batch // at_once

    def to_yaml(self) -> str:
        """The recipe with every value written out."""
        return str(yaml.safe_dump(self.values(), sort_keys=False))

    def template_text(self) -> str | None:
        """The training chat template's source, None where the student's own is to be used.

        Raises:
            UserError: there is no such template.
        """
        if self.chat_template is None:
            return None
        known = {path.stem: path for path in sorted(TEMPLATES.glob("*.jinja"))}
        path = known.get(self.chat_template, Path(self.chat_template))
        if not path.is_file():
            raise unknown("chat template", self.chat_template, known)
        return path.read_text(encoding="utf-8")


def recipe_names() -> list[str]:
    """The names of the recipes that come with the project."""
    return list(_bundled())


def load_recipe(name_or_path: str, settings: Iterable[Setting] = ()) -> Recipe:
    """Read a recipe and lay settings over it.

    Args:
        name_or_path: `smollm2-135m-cpu`, or the path of a YAML file.
        settings: What `--set` says; a dot reaches inside, into a named mixture too: settings_of(["mixture.benign=20"]).

    Raises:
        UserError: an unknown recipe or key (with the nearest name), a file that is not YAML, a value out of bounds.
    """
    values = _values_of(name_or_path)
    if "mixture" in values:
        values["mixture"] = mixture_now(values["mixture"])
    for setting in map(_named_now, settings):
        if setting.key.startswith("mixture.") and "mixture" in values:
            values["mixture"] = _mixed(values["mixture"], setting)
        else:
            values = override(values, [setting], Recipe)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explained(name_or_path, error) from error


def _values_of(name_or_path: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's keys over those of the one that it extends: a bundled recipe, or a file, also one beside it."""
    path = _find(name_or_path)
    if path in above:
        raise UserError(f"Recipe {path} extends itself. Take `extends:` out of one of: {', '.join(map(str, above))}.")
    values = read_yaml(path, "Recipe ")
    if not isinstance(values, dict):
        raise UserError(f"Recipe {path} is not a YAML mapping of keys to values.")
    if (base := values.pop("extends", None)) is None:
        return values
    beside = path.parent / str(base)
    return {**_values_of(str(beside if beside.is_file() else base), (*above, path)), **values}


def _bundled() -> dict[str, Path]:
    return {f"{path.parent.name}-{path.stem}": path for path in sorted(RECIPES.glob("*/*.yaml"))}


def _find(name_or_path: str) -> Path:
    known = _bundled()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        if path.is_file():
            return path
        raise UserError(f"There is no recipe file '{path}'. Recipes by name: {', '.join(known)}.")
    raise unknown("recipe", name_or_path, known)


def _named_now(setting: Setting) -> Setting:
    """A setting of a mixture with the variant's name now, with a line for whoever typed another."""
    part, _, name = setting.key.partition(".")
    if part != "mixture":
        return setting
    if name:
        return Setting(f"{part}.{typed_name(name)}", setting.value, setting.text)
    return Setting(part, mixture_now(setting.value), setting.text)


def mixture_now(mixture: Any) -> Any:
    """A mixture with the variants' current names, with a line where they differ.

    Raises:
        UserError: it names a variant under both names.
    """
    if not isinstance(mixture, dict):
        return mixture
    try:
        found = keys_now(mixture)
    except ValueError as error:
        raise UserError(f"mixture: {error}.") from error
    for name in mixture:
        typed_name(name)
    return {**found, "release": mixture_now(found["release"])} if "release" in found else found


def _mixed(mixture: Any, setting: Setting) -> Any:
    """A mixture with another number of rows. A named one is written out; its further datasets go by their names."""
    if isinstance(mixture, str):
        mixture = load_blend(mixture).model_dump(mode="json")
    elif not isinstance(mixture, dict) or not isinstance(mixture.get("release"), dict):
        return override({"mixture": mixture}, [setting], Recipe)["mixture"]
    name = setting.key.removeprefix("mixture.")
    further = [
        {**part, "rows": setting.value} if part.get("name") == name else part for part in mixture.get("further") or ()
    ]
    release = dict(mixture["release"])
    if name not in {part.get("name") for part in further}:
        release[name] = setting.value
    return {"release": release, "further": further} if further else release


def _explained(recipe: str, error: ValidationError) -> UserError:
    # A key that does not exist first: one that is missing is often the same mistake.
    first = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")[0]
    # Pydantic names the member of a union as well, which is no key.
    where = [str(part) for part in first["loc"] if not str(part).startswith("dict[") and part not in ("str", "Blend")]
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"lora": Lora, "dpo": Dpo, "kto": Kto, "rm": Rm, "grpo": Grpo}
        model = sections.get(where[0], Recipe) if len(where) > 1 else Recipe
        return unknown("recipe key", ".".join(where), [".".join([*where[:-1], name]) for name in model.model_fields])
    problem = first["msg"].removeprefix("Value error, ")
    if not where:  # of several keys together, as it was raised here
        return UserError(f"Recipe '{recipe}': {problem}.")
    problem = problem[:1].lower() + problem[1:]
    value = "" if first["type"] == "missing" else f" (it is {first['input']!r})"
    return UserError(f"Recipe '{recipe}', {'.'.join(where)}: {problem}{value}.")
