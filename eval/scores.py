"""What an evaluation found: the content of `scores.json`.

Reads and writes that file only; `eval/run.py` makes it, the table, the report and the model card show it.

    decoding     how answers were made          models       label, folder, hash, speed, Inspect logs
    datasets     files and their hashes         groups       counts and intervals by model x set x kind
    comparisons  paired tests between models    samples      every question with what was answered

In every group refused + complied + unscored = n = expected: nothing leaves the denominator.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import UserError
from pipelines.records import Kind
from pipelines.runs import write_json
from pipelines.statistics import Interval, McNemar

FORMAT = 1
NAME = "scores.json"

Measure = Literal["refused", "well_formed"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How every answer was made."""

    max_tokens: int
    method: Literal["greedy"]
    dtype: Literal["bfloat16"]
    batch: int


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """An evaluation set: its file's name and sha256, and how many questions were asked from it."""

    name: str
    file: str
    sha256: str
    questions: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model and its run. `seconds` is the asking, without loading; `logs` are relative to scores.json."""

    label: str
    path: str
    weights_sha256: str
    seconds: float
    output_tokens: int
    tokens_per_s: float
    logs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Counts of one model on one set's questions of one kind. Truncated and unclosed overlap with the other counts."""

    model: str
    set: str
    kind: Kind
    n: int
    expected: int
    refused: int
    complied: int
    unscored: int
    well_formed: int
    truncated: int
    unclosed: int
    refused_rate: Interval
    well_formed_rate: Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same questions. An unscored answer counts as not refused."""

    set: str
    kind: Kind
    measure: Measure
    first: str
    second: str
    test: McNemar


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One answer. `refused` is null where the answer is empty: unscored. The texts are hostile: escape them."""

    model: str
    set: str
    id: str
    kind: Kind
    category: str
    text: str
    reasoning: str
    answer: str
    refused: bool | None
    well_formed: bool
    truncated: bool
    unclosed: bool
    stop_reason: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The whole evaluation. Groups and samples are ordered by model, set and kind."""

    format: int
    decoding: Decoding
    datasets: tuple[QuestionFile, ...]
    models: tuple[Evaluated, ...]
    groups: tuple[Group, ...]
    comparisons: tuple[Comparison, ...]
    samples: tuple[ScoredSample, ...]


def write_scores(scores: Scores, path: Path) -> None:
    """Write them atomically."""
    write_json(path, TypeAdapter(Scores).dump_python(scores, mode="json"))


def read_scores(path: Path) -> Scores:
    """Read them back.

    Raises:
        UserError: the file is missing, is no `scores.json`, or was written in another format.
    """
    try:
        scores = TypeAdapter(Scores).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"There are no scores at '{path}'. Run first: saferthoughts eval") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the file"
        raise UserError(f"'{path}' does not hold scores ({where}: {wrong['msg']}). Evaluate again.") from error
    if scores.format != FORMAT:
        raise UserError(f"'{path}' has the format {scores.format}, this version reads {FORMAT}. Evaluate again.")
    return scores
