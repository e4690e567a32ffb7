"""The configuration of a run: the only place where a default is written.

Reads `pipelines/teachers/teachers.yaml`, `pipelines/judges/judges.yaml` and users' files of the first's shape; reads
and writes `run.yaml` in a run folder. Secrets are not part of it: a teacher names the environment variable that holds
its key.
"""

import datetime
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipelines.errors import UserError, unknown
from pipelines.expressions import check_expression
from pipelines.prompts.variant import Variant, load_variants, reworded, variant
from pipelines.runs import RunFolder, write_text
from pipelines.settings.keys import HIDDEN, check_url, check_variable, keys_within, shown
from pipelines.settings.licenses import LICENSES
from pipelines.settings.old_names import names_now
from pipelines.settings.overrides import safe_yaml, yaml_problem
from pipelines.templates import template_of
from pipelines.thinking import ReasoningStyle

TEACHERS = Path(__file__).parents[1] / "teachers" / "teachers.yaml"
# What the template of a judge of safety may name.
JUDGED = ("query", "reasoning", "answer")
JUDGES = Path(__file__).parents[1] / "judges" / "judges.yaml"


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


class Sampling(Part):
    """What is sent to a teacher with every request; a null is not sent."""

    temperature: float | None = Field(default=0.6, ge=0, le=2)
    top_p: float | None = Field(default=0.95, gt=0, le=1)
    max_tokens: int | None = Field(default=8192, ge=1, description="most tokens of reasoning and answer together")
    seed: int | None = Field(default=None, description="sent as it is; null where an endpoint takes no seed")


class Price(Part):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0, description="null where cached input costs as any other")

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """US dollars for one answer; `cached_tokens` are those of the input that the endpoint had cached."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached_price + output_tokens * self.output) / 1e6


class Serve(Part):
    """A vLLM server that is started for a run and stopped at its end."""

    model: str
    args: tuple[str, ...] = Field(default=(), description="further arguments of `vllm serve`, one string each")
    health_timeout_s: float = Field(default=900, gt=0, description="how long loading may take")


class Teacher(Part):
    """An OpenAI-compatible endpoint, or several alike, or a server to be started."""

    model: str
    base_url: str | None = Field(default=None, description="null for an embedded or a served teacher")
    base_urls: tuple[str, ...] = Field(default=(), description="several servers of one model; the least busy is asked")
    embedded: bool = Field(default=False, description="served by this process, as the rehearsal teacher is")
    serve: Serve | None = Field(default=None, description="start this server for the run")
    transport: Literal["requests", "batch"] = Field(default="requests", description="batch: OpenAI's Batch API")
    api_key_env: str | None = Field(default=None, description="environment variable that holds the key")
    sampling: Sampling = Sampling()
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="what the endpoint calls sampling.max_tokens"
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="further fields of the request, sent as is")
    reasoning_style: ReasoningStyle = Field(default="auto", description="where the server puts reasoning")
    in_flight: int = Field(default=32, ge=1, le=4096, description="most requests under way at once, at each server")
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0, description="of input and output together")
    context_length: int | None = Field(default=None, ge=1, description="tokens of prompt and answer together")
    stream: Literal["auto"] | bool = Field(
        default="auto", description="auto streams long answers of other machines; see docs/teachers.md"
    )
    attempt_timeout_s: float = Field(
        default=900, gt=0, description="after this without an answer, or the first piece of a stream, it is asked again"
    )
    idle_timeout_s: float = Field(default=120, gt=0, description="most time between two pieces of a streamed answer")
    retries: int = Field(default=6, ge=0, le=50, description="for 408, 409, 425, 429, 5xx, cut connections and hangs")
    price: Price | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Every endpoint that the entry names; none for an embedded or served teacher."""
        return ((self.base_url,) if self.base_url else ()) + self.base_urls

    @property
    def place(self) -> str:
        """Where answers come from, as it is told in tables, reports and cards."""
        if self.embedded:
            return "embedded rehearsal teacher, not a model"
        return ", ".join(self.urls) or "a vLLM server, started for the run"

    @field_validator("base_url", "base_urls")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            check_url(url)
        return value

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None:
            check_variable(value)
        return value

    @field_validator("extra_body")
    @classmethod
    def _no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        if (found := next(keys_within(value), None)) is not None:
            raise ValueError(
                f"'{found}' holds a key, which files of the run would show. Put it into an environment variable and "
                "name that with api_key_env"
            )
        return value

    @model_validator(mode="after")
    def _reachable(self) -> "Teacher":
        if bool(self.urls) + self.embedded + (self.serve is not None) != 1:
            raise ValueError("a teacher has one of base_url (or base_urls), `embedded: true` and serve")
        if self.transport == "batch" and len(self.urls) != 1:
            raise ValueError("transport: batch needs one base_url, where the batches are found again")
        return self


class Roles(Part):
    """Which teacher answers the variants of each role; see `teacher:` in each variant.yaml."""

    reasoning: str | None = Field(default=None, description="a name of teachers.yaml; a run that asks needs one")
    general: str | None = Field(default=None, description="the same teacher if not given")


JudgeKind = Literal["rules", "patterns", "safety"]


class Judge(Part):
    """Who judges responses: rules, or a teacher entry asked as a judge of the patterns or of safety."""

    kind: JudgeKind
    teacher: str | None = Field(default=None, description="the entry of teachers.yaml that is asked; null for rules")
    form: Literal["reasoningshield", "llamaguard", "template"] | None = Field(
        default=None, description="how a judge of safety is asked and read"
    )
    template: str | None = Field(default=None, description="jinja over query, reasoning, answer; for form: template")
    safe: str | None = Field(default=None, description="regular expression of a reply that says safe; form: template")
    unsafe: str | None = Field(default=None, description="the same for unsafe; wins where both are found")
    threshold: float = Field(default=0, ge=0, le=1, description="highest judgment of ReasoningShield that is safe")
    sampling: Sampling = Sampling(temperature=0, top_p=None, max_tokens=2048)
    output: Literal["auto", "json_schema", "json_object", "text"] = Field(
        default="auto", description="how JSON is asked for; auto takes the first of the three that the server accepts"
    )
    asks: int = Field(default=3, ge=1, le=10, description="most requests for one verdict, until one can be read")
    window_chars: int = Field(default=24_000, ge=1000, description="longest piece of reasoning shown in one request")
    overlap_chars: int = Field(default=2_000, ge=0, description="how much of a piece is shown again with the next")

    @model_validator(mode="after")
    def _complete(self) -> "Judge":
        if (self.kind == "rules") != (self.teacher is None):
            raise ValueError("a judge of the patterns or of safety needs a teacher, and rules take none")
        if (self.kind == "safety") != (self.form is not None):
            raise ValueError("a judge of safety, and no other, has a form: reasoningshield, llamaguard or template")
        if self.form == "template" and not (self.template and self.safe and self.unsafe):
            raise ValueError("form: template needs template, safe and unsafe")
        if self.template is not None:
            template_of(self.template, JUDGED, "The template of a judge")
        for name in ("safe", "unsafe"):
            if expression := getattr(self, name):
                check_expression(expression, f"'{name}' of a judge")
        if self.overlap_chars * 2 > self.window_chars:
            raise ValueError("overlap_chars can be at most half of window_chars")
        return self


class Judging(Part):
    """Which judges judge a run, and how their votes are counted."""

    judges: tuple[str, ...] = Field(default=("rules",), min_length=1, description="names of judges.yaml or of `judges`")
    vote: Literal["majority", "any", "all"] = Field(
        default="majority", description="how many judges of a kind must flag a label; a tie of the majority flags"
    )


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


class Checks(NamingVariants):
    """Parameters of the quality queries; each query's file tells what they do."""

    only: tuple[str, ...] = Field(default=(), description="names of the checks to run; empty for all")
    folder: str | None = Field(default=None, description="a folder of .sql files with checks of one's own")
    flagged: bool = Field(default=True, description="whether a row with a pattern is rejected")
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


class Selection(NamingVariants):
    """How many accepted rows are drawn, from which variants."""

    harmful: int = Field(default=1000, ge=0, description="harmful rows of each variant")
    benign: int = Field(default=100, ge=0, description="benign rows")
    paired: bool = Field(default=False, description="only prompts that survive in all chosen variants")
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


def read_yaml(path: Path) -> Any:
    """A YAML file's content.

    Raises:
        UserError: it is missing or not YAML, with the line.
    """
    try:
        return safe_yaml(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"There is no file {path}.") from error
    except yaml.YAMLError as error:
        # The error itself quotes the line, which may hold a key.
        raise UserError(f"{path} is not YAML: {yaml_problem(error)}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not YAML: it is no UTF-8 text (at byte {error.start}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def load_teachers(extra: Path | None = None) -> dict[str, Teacher]:
    """The shipped teachers, and those of a user's file on top."""
    return {**teachers_in(TEACHERS), **(teachers_in(extra) if extra else {})}


def teachers_in(path: Path) -> dict[str, Teacher]:
    """The entries of one file.

    Raises:
        UserError: it is missing, or an entry does not fit.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no teachers: it must map names to entries, as {TEACHERS.name} does.")
    return {str(name): validated(Teacher, value, f"teacher '{name}' in {path}") for name, value in values.items()}


def load_judges() -> dict[str, Judge]:
    """The shipped judges."""
    return {name: validated(Judge, value, f"judge '{name}' in {JUDGES}") for name, value in read_yaml(JUDGES).items()}


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
