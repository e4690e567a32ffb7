"""The configuration of a run: with `teacher.py` and `judge.py`, the only place where a default is written.

Reads and writes `run.yaml` in a run folder.
"""

import datetime
from collections.abc import Callable
from difflib import get_close_matches
from typing import Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipelines.errors import UserError
from pipelines.prompts.variant import Variant, load_variants, reworded, variant
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, write_text
from pipelines.settings.judge import Judge, Judging
from pipelines.settings.licenses import LICENSES
from pipelines.settings.parts import NamingVariants, Part, read_yaml, validated
from pipelines.settings.teacher import Teacher
from pipelines.thinking import ReasoningKey


class Roles(Part):
    """Which teacher answers the variants of each role; see `teacher:` in each variant.yaml."""

    reasoning: str | None = Field(default=None, description="a name of teachers.yaml; a run that asks needs one")
    general: str | None = Field(default=None, description="the same teacher if not given")


class Repairing(NamingVariants):
    """How flagged rows are asked for again."""

    attempts: int = Field(default=2, ge=0, le=10, description="most further attempts at a row; 0 repairs nothing")
    strategy: Literal["instruct", "resample", "edit", "escalate"] = "instruct"
    variants: tuple[str, ...] = Field(
        default=(), description="variants whose rows are repaired; empty for those whose variant.yaml says so"
    )


class Prompts(Part):
    """Which prompts a run draws."""

    source: str = Field(default="bundled", description="the bundled set, or a folder or file of prompts")
    harmful: int | None = Field(default=None, ge=0, description="how many harmful prompts; null for all combinations")
    benign: int | None = Field(default=None, ge=0, description="how many benign prompts; null for all")
    bare_share: float = Field(default=0, ge=0, le=1, description="share of harmful prompts without a jailbreak")
    kind: str | None = Field(default=None, description="kind of every row of a file that has no kind column")
    columns: dict[str, str] = Field(default_factory=dict, description="field to column, for a file of other names")
    files: dict[Literal["harmful", "benign", "templates"], str] = Field(
        default_factory=dict, description="published sets by part, in place of source; see docs/prompts.md"
    )

    @model_validator(mode="after")
    def _some_requests(self) -> "Prompts":
        if set(self.files) == {"templates"}:
            raise ValueError("templates need requests to put in them: give harmful prompts as well")
        return self

    @property
    def named(self) -> str:
        """Where the prompts come from, in a line."""
        return ", ".join(f"{part} {place}" for part, place in self.files.items()) or self.source


class Checks(NamingVariants):
    """Parameters of the quality queries; each query's file tells what they do."""

    only: tuple[str, ...] = Field(default=(), description="names of the checks to run; empty for all")
    folder: str | None = Field(default=None, description="a folder of .sql files with checks of one's own")
    flagged: bool = Field(default=True, description="whether a row with a pattern is rejected")
    patterns: tuple[str, ...] = Field(
        default=PATTERNS, description="the patterns that reject a row; with none of them no verdict on them is needed"
    )
    variants: tuple[str, ...] = Field(
        default=(),
        description="variants whose rows are rejected for a pattern; empty for those whose variant.yaml says so",
    )
    loop_times: int = Field(default=4, ge=2, description="copies of one piece that make a text run in circles")
    copied_share: float = Field(default=0.5, gt=0, le=1, description="most of a reasoning that may be the prompt")
    same_text_prompts: int = Field(default=3, ge=1, description="most prompts that may share one text")
    near_duplicate_similarity: float = Field(default=0.8, ge=0.5, le=1, description="least share of common shingles")
    near_duplicates: bool = Field(default=False, description="whether a near-duplicate response is rejected")
    contaminated_by: tuple[str, ...] = Field(default=(), description="evaluation sets whose overlap rejects a row")

    @field_validator("patterns")
    @classmethod
    def _known_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if strange := set(value) - set(PATTERNS):
            raise ValueError(f"there is no pattern '{min(strange)}', but {', '.join(PATTERNS)}")
        return value


class Selection(NamingVariants):
    """How many accepted rows are drawn, from which variants."""

    harmful: int = Field(default=1000, ge=0, description="harmful rows of each variant")
    benign: int = Field(default=100, ge=0, description="benign rows")
    paired: bool = Field(default=False, description="only prompts that survive in all chosen variants")
    stratified: bool = Field(default=True, description="mixed as the prompts are; false draws at random, as the study")
    by: Literal["student_nll"] | None = Field(
        default=None, description="draw first what a student finds likeliest (`student nll`); null draws at random"
    )
    variants: tuple[str, ...] = Field(default=(), description="the variants to draw; empty for all of the run")


class Requires(Part):
    """What people's review must have shown before a release is built; null asks for nothing."""

    reviewed: int | None = Field(default=None, ge=0, description="rows that a person has voted on, at least")
    judge_kappa: float | None = Field(default=None, ge=-1, le=1, description="the judges' kappa with people, at least")
    unsafe_upper_bound: float | None = Field(
        default=None, gt=0, le=1, description="upper end of the interval of the accepted rows' unsafe share, at most"
    )


class Gating(Part):
    """What people read and fill in on the Hub before a gated release lets them download."""

    text: str = Field(description="what they agree to")
    fields: dict[str, Literal["text", "checkbox", "country", "date_picker"]] = Field(
        default_factory=dict, description="what they fill in: a label, and its kind"
    )


class Release(Part):
    """What is written on a release, and what it has to meet."""

    requires: Requires = Requires()
    version: str = Field(default="1.0.0", pattern=r"^\d+\.\d+\.\d+$")
    title: str = "Safe reasoning by SaferThoughts"
    repo: str | None = Field(
        default=None, pattern=r"^\w[\w.-]*/\w[\w.-]*$", description="ORG/NAME on the Hub, for the card's examples"
    )
    license: str = "apache-2.0"
    license_text: str | None = Field(
        default=None, validate_default=True, description="the text of LICENSE; `other` needs one"
    )
    language: tuple[str, ...] = Field(default=("en",), min_length=1, description="ISO 639 codes of prompts and answers")
    gating: Gating | None = None
    configs: tuple[Literal["preference", "unpaired", "prompts", "steps"], ...] = Field(
        default=(), description="what other objectives are trained on, beside the variants"
    )
    length_ratio: float | None = Field(
        default=None, ge=1, description="of a preference pair, words of the longer side over the shorter, at most"
    )
    reasoning_key: ReasoningKey = Field(
        default="inline", description="where conversations have the reasoning: within the content, or beside it"
    )
    date: datetime.date | None = Field(default=None, description="its day; the day of the last response if not given")

    @field_validator("license")
    @classmethod
    def _known_license(cls, value: str) -> str:
        if value not in LICENSES:
            near = get_close_matches(value, LICENSES, n=1)
            raise ValueError(f"the Hub knows no such licence{f', but {near[0]}' if near else ''} ('other' is one too)")
        return value

    @field_validator("license_text")
    @classmethod
    def _other_has_a_text(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("license") == "other" and not (value or "").strip():
            raise ValueError("license 'other' needs the text that LICENSE is to hold")
        return value


class Training(Part):
    """How a run's student is trained; the recipe holds everything else."""

    recipe: str = "smollm2-135m-cpu"


class RunConfig(NamingVariants):
    """All of it. `run.yaml` in a run folder is this, resolved."""

    seed: int = 0
    prompts: Prompts = Prompts()
    variants: tuple[str, ...] = Field(default_factory=lambda: tuple(load_variants()))
    instructions: dict[str, str] = Field(default_factory=dict, description="a variant's own wording replaced, by name")
    benign_variant: str = Field(default="direct", description="the variant that answers benign prompts")
    samples: int = Field(default=1, ge=1, le=64, description="answers per prompt and variant")
    roles: Roles = Roles()
    teachers: dict[str, Teacher] = Field(default_factory=dict)
    judging: Judging = Judging()
    judges: dict[str, Judge] = Field(default_factory=dict)
    judge_teachers: dict[str, Teacher] = Field(default_factory=dict, description="the entries that the judges ask")
    repair: Repairing = Repairing()
    checks: Checks = Checks()
    selection: Selection = Selection()
    release: Release = Release()
    training: Training = Training()

    @model_validator(mode="after")
    def _readable(self) -> "RunConfig":
        for name in self.instructions:
            self.variant(name)
        return self

    def variant(self, name: str) -> Variant:
        """A variant as this run words it."""
        return reworded(variant(name), self.instructions.get(name))

    def repairs(self, name: str) -> bool:
        """Whether flagged answers of a variant to harmful prompts are asked for again."""
        return name in self.repair.variants if self.repair.variants else variant(name).repaired

    def checks_patterns(self, name: str, baseline: bool = True) -> bool:
        """Whether answers of a variant to harmful prompts are rejected for a pattern, where any are (`checks.flagged`).
        Where there is no `baseline`, as among rows of others, those of all variants are."""
        if self.checks.variants:
            return name in self.checks.variants
        return not baseline or variant(name).pattern_checked

    def teacher_of(self, variant_name: str) -> str | None:
        """The name of the teacher that answers a variant, None for a variant that asks nobody.

        Raises:
            UserError: the variant asks a teacher, and none is named.
        """
        role = variant(variant_name).teacher
        if role == "none":
            return None
        name = self.roles.reasoning if role == "reasoning" else self.roles.general or paired_with(self.roles.reasoning)
        if name is None:
            raise UserError(NO_TEACHER)
        return name


# Two of the shipped entries are a pair: one stands in for R1, the other for GPT-4o.
_GENERAL = {"rehearsal": "rehearsal-general"}
NO_TEACHER = (
    "Who answers? No teacher is named. Give --base-url and --model of an endpoint, or --teacher NAME (`saferthoughts "
    "teachers list` has the names), or --teacher rehearsal for the rehearsal teacher, a stand-in that is no model."
)


def paired_with(reasoning: str | None) -> str | None:
    """Who answers the variants of a general model where nobody is named for them."""
    return None if reasoning is None else _GENERAL.get(reasoning, reasoning)


def change_config(run: RunFolder, change: Callable[[RunConfig], RunConfig]) -> RunConfig:
    """Read, change and write `run.yaml`, with no other process in between; what it is now.

    Raises:
        UserError: it is missing or does not fit, or whatever `change` raises.
    """
    with run.locked():
        before = load_config(run)
        after = change(before)
        if after != before:
            save_config(run, after)
    return after


def save_config(run: RunFolder, config: RunConfig) -> None:
    """Write `run.yaml`."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(run.path / "run.yaml", text)


def load_config(run: RunFolder) -> RunConfig:
    """Read `run.yaml`.

    Raises:
        UserError: it is missing, or does not fit.
    """
    path = run.path / "run.yaml"
    if not path.exists():
        raise UserError(f"{run.path} has no run.yaml yet. Run first: saferthoughts prompts {run.name}")
    try:
        return validated(RunConfig, read_yaml(path) or {}, str(path))
    except UserError as error:
        again = f"Mend it, or move it away and draw the prompts anew: saferthoughts prompts {run.name}"
        raise UserError(f"{error} {again}") from error
