"""The rows every stage passes on: frozen dataclasses, their arrow schemas, their content-hash ids.

Ids say what a row *is*, so a rerun, another order or another machine gives the same ids:
prompt_id = hash(behaviour, template); response_id = hash(prompt_id, variant, teacher, sampling, sample, attempt).
A variant goes into it by the name that it had first.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, TypeVar

import pyarrow as pa

Kind = Literal["harmful", "benign"]

# The study's labels. `overthinking` is the parent of the three that follow it, not a pattern of its own.
LABELS = (
    "lack_of_safety_awareness",
    "overthinking",
    "strong_vacillation",
    "weak_vacillation",
    "harmful_additions",
    "inconsistency",
)
OVERTHINKING_SUBTYPES = ("strong_vacillation", "weak_vacillation", "harmful_additions")
PATTERNS = tuple(label for label in LABELS if label != "overthinking")


def content_id(*parts: Any) -> str:
    """First 16 hex digits of the sha256 of the parts' canonical JSON."""
    text = _CANONICAL.encode(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as a user would type it: a behaviour (the bare request), inside a jailbreak template or bare.

    `template_id` is "" for a bare request. `category` is one of the eight template categories for harmful prompts,
    and the look-alike's kind for benign ones.
    """

    prompt_id: str
    kind: Kind
    behaviour_id: str
    template_id: str
    category: str
    behaviour: str
    text: str
    source: str
    source_license: str


@dataclass(frozen=True, slots=True)
class Response:
    """One answer of a teacher (or of a fixed text) to one prompt in one variant.

    Tokens are the endpoint's own counts, `latency_s` is in seconds, `cost` in US dollars (null where no price is
    known). `reasoning_source` tells where the reasoning was found: reasoning_content, reasoning, inline,
    missing_opener, truncated, fixed, or none.
    """

    response_id: str
    prompt_id: str
    variant: str
    teacher: str
    model: str
    sampling: str
    sample: int
    attempt: int
    parent_id: str
    reasoning: str
    answer: str
    reasoning_source: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    latency_s: float
    cost: float | None
    request_key: str


def response_from_elsewhere(
    response_id: str,
    prompt_id: str,
    variant: str,
    reasoning: str,
    answer: str,
    *,
    teacher: str = "",
    model: str = "",
    reasoning_source: str = "inline",
    finish_reason: str = "stop",
) -> Response:
    """A response that no request of a run's brought: nothing is known of its sampling, tokens, time and cost."""
    return Response(
        response_id=response_id,
        prompt_id=prompt_id,
        variant=variant,
        teacher=teacher,
        model=model,
        sampling="{}",
        sample=0,
        attempt=0,
        parent_id="",
        reasoning=reasoning,
        answer=answer,
        reasoning_source=reasoning_source,
        finish_reason=finish_reason,
        input_tokens=0,
        output_tokens=0,
        latency_s=0.0,
        cost=None,
        request_key="",
    )


# What a judge says of the answer to a benign prompt, in XSTest's three classes.
Compliance = Literal["full_compliance", "partial_refusal", "full_refusal"]
Safety = Literal["safe", "unsafe"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judge said of one response. A verdict that could not be reached has nulls and a `reason`.

    `kind` is what the judge judges: "patterns" (labels; `compliance` in their place for a benign prompt) or "safety"
    (`safety`, and `score` where the guard grades: 0 safe, 0.5, 1 unsafe). `evidence` is JSON, label to a quoted span
    of the response, and `spans` where each stands (`pipelines.judges.spans`); null where a run was judged before that
    was kept. `requests`, tokens and US dollars are what it took; 0 for rules. `confidence`: 0 to 1, how sure the
    judge is of flagging the row or not (`pipelines.judges.confidence`); null where it was not asked for.
    """

    response_id: str
    judge: str
    kind: str
    lack_of_safety_awareness: bool | None
    overthinking: bool | None
    strong_vacillation: bool | None
    weak_vacillation: bool | None
    harmful_additions: bool | None
    inconsistency: bool | None
    refused: bool | None
    compliance: str | None
    safety: str | None
    score: float | None
    evidence: str
    analysis: str
    reason: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    spans: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all judges together say of one response: a row for each response.

    A verdict on the patterns that could not be reached has null labels and a `reason`; one on safety has a null
    `safety` and a `safety_reason`, both of which are null and "" where no judge of safety was asked. `disagreement`
    is the share of the voted values on which judges differed; null for a single judge.
    """

    response_id: str
    judge: str
    lack_of_safety_awareness: bool | None
    overthinking: bool | None
    strong_vacillation: bool | None
    weak_vacillation: bool | None
    harmful_additions: bool | None
    inconsistency: bool | None
    refused: bool | None
    compliance: str | None
    safety: str | None
    disagreement: float | None
    evidence: str
    reason: str
    safety_reason: str


@dataclass(frozen=True, slots=True)
class Repair:
    """One attempt at one flagged row: attempt 0 is the row as it was generated, `root_id` its response_id.

    `patterns` counts the patterns that the judges see in the attempt (null: unscored), `flagged` names them, comma
    separated, with "unsafe", "no_refusal" and "over_refusal". Of each root one attempt is `chosen`, and the others are
    superseded.
    """

    root_id: str
    response_id: str
    attempt: int
    strategy: str
    patterns: int | None
    flagged: str
    chosen: bool


_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(),
    Kind: pa.string(),
    str | None: pa.string(),
    int: pa.int64(),
    int | None: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
    bool: pa.bool_(),
    bool | None: pa.bool_(),
}

Row = TypeVar("Row", Prompt, Response, Judgement, Verdict, Repair)


def arrow_schema(row: type[Row]) -> pa.Schema:
    """The arrow schema of one of the row classes above; only `X | None` columns are nullable."""
    return pa.schema(
        [pa.field(item.name, _ARROW[item.type], nullable="None" in str(item.type)) for item in fields(row)]
    )


def to_table(row: type[Row], rows: Iterable[Row]) -> pa.Table:
    """Rows of one class as an arrow table with that class's schema, in the given order."""
    kept = list(rows)
    schema = arrow_schema(row)
    return pa.table([[getattr(item, name) for item in kept] for name in schema.names], schema=schema)


def from_table(row: type[Row], table: pa.Table) -> list[Row]:
    """An arrow table with (at least) the class's columns as a list of its rows; what came to the class later and is not
    there is its default."""
    names = [item.name for item in fields(row) if item.name in table.column_names or item.default is MISSING]
    # By columns: a dict of each row would take as long again.
    return [row(*values) for values in zip(*(table.column(name).to_pylist() for name in names), strict=True)]
