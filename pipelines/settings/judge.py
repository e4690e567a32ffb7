"""Entries of judges: rules, or a teacher's entry that is asked, and how their votes are counted.

Reads `pipelines/judges/judges.yaml`; writes nothing.
"""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from pipelines.expressions import check_expression
from pipelines.settings.parts import Part, read_yaml, validated
from pipelines.settings.teacher import Sampling
from pipelines.templates import template_of

# What the template of a judge of safety may name.
JUDGED = ("query", "reasoning", "answer")
JUDGES = Path(__file__).parents[1] / "judges" / "judges.yaml"

Form = Literal[
    "reasoningshield", "llamaguard", "qwen3guard", "wildguard", "polyguard", "shieldgemma", "graniteguardian",
    "nemotron", "harmbench", "policy", "template",
]  # fmt: skip
JudgeKind = Literal["rules", "local", "patterns", "safety"]


class Judge(Part):
    """Who judges responses: rules, a local judge's folder, or a teacher entry asked as a judge of the patterns or of
    safety; a folder and a teacher together are a cascade."""

    kind: JudgeKind
    teacher: str | None = Field(
        default=None, description="the entry of teachers.yaml that is asked; null for rules and local"
    )
    folder: str | None = Field(
        default=None, description="a local judge's; of kind patterns, it goes before the teacher"
    )
    digest: str | None = Field(default=None, description="the version of the folder that the run judges by")
    lost: float = Field(
        default=0.01,
        ge=0.001,
        le=0.2,
        description="of a cascade: the share of flagged rows that it may miss a label of",
    )
    sure: float = Field(default=0.9, ge=0.5, le=0.999, description="the share of runs in which that has to hold")
    form: Form | None = Field(default=None, description="how a judge of safety is asked and read")
    policy: str | None = Field(default=None, description="what violates and what does not, in words; for form: policy")
    template: str | None = Field(default=None, description="jinja over query, reasoning, answer; for form: template")
    safe: str | None = Field(default=None, description="regular expression of a reply that says safe; form: template")
    unsafe: str | None = Field(default=None, description="the same for unsafe; wins where both are found")
    threshold: float = Field(default=0, ge=0, le=1, description="highest grade of a guard that is safe")
    sampling: Sampling = Sampling(temperature=0, top_p=None, max_tokens=2048)
    output: Literal["auto", "json_schema", "json_object", "text"] = Field(
        default="auto", description="how JSON is asked for; auto takes the first of the three that the server accepts"
    )
    asks: int = Field(default=3, ge=1, le=10, description="most requests for one verdict, until one can be read")
    rows_per_request: int = Field(
        default=1, ge=1, le=50, description="most responses to one prompt that a judge of the patterns is shown at once"
    )
    window_chars: int = Field(default=24_000, ge=1000, description="longest piece of reasoning shown in one request")
    overlap_chars: int = Field(default=2_000, ge=0, description="how much of a piece is shown again with the next")

    @model_validator(mode="after")
    def _complete(self) -> "Judge":
        if (self.kind in ("rules", "local")) != (self.teacher is None):
            raise ValueError("a judge of the patterns or of safety needs a teacher; rules and local judges take none")
        if (self.kind == "local" and not self.folder) or (self.folder and self.kind not in ("local", "patterns")):
            raise ValueError(
                "a local judge needs a folder; beside it only a judge of the patterns takes one, as a cascade"
            )
        if self.folder and not self.digest:
            raise ValueError("a folder needs its digest, which --judge local:FOLDER or cascade:FOLDER,NAME writes down")
        if self.folder and self.rows_per_request > 1:
            raise ValueError("a cascade shows its LLM one row a request; leave rows_per_request at 1")
        if (self.kind == "safety") != (self.form is not None):
            raise ValueError(f"a judge of safety, and no other, has a form: {', '.join(get_args(Form))}")
        if self.form == "template" and not (self.template and self.safe and self.unsafe):
            raise ValueError("form: template needs template, safe and unsafe")
        if (self.form == "policy") != bool((self.policy or "").strip()):
            raise ValueError("form: policy needs a policy, and no other form takes one")
        if self.rows_per_request > 1 and self.kind != "patterns":
            raise ValueError("a judge of the patterns, and no other, takes several rows_per_request")
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
    repeat: int = Field(
        default=1,
        ge=1,
        le=20,
        description="how often each verdict is asked for; the first stands, the others agree or not",
    )
    logprobs: bool = Field(default=False, description="ask judges for the probabilities of their tokens")


def load_judges() -> dict[str, Judge]:
    """The shipped judges."""
    return {name: validated(Judge, value, f"judge '{name}' in {JUDGES}") for name, value in read_yaml(JUDGES).items()}
