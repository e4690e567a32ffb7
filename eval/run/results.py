"""What an evaluation found: the content of `results.json`, for every task, model and answer.

Reads and writes that file only; `eval/run/stage.py` makes it, `eval/report/page.py`, the model card and the run's
report show it.

    models       label, what it is, speed          tasks        measure, data, protocol, roles, hashes
    rates        counts and intervals by model x task x group
    comparisons  paired tests between models       answers      every question with what was answered

In every rate hits + misses + unscored + errored = n = expected: nothing leaves the denominator. An answer without a
verdict counts as no hit in `rate`, and as one in the interval's upper end: the interval spans what it may have been.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from eval.report.paper_results import method_now
from eval.run.logs import check_log_name
from pipelines.errors import UserError
from pipelines.runs import write_json
from pipelines.statistics import Interval, McNemar

FORMAT = 2
NAME = "results.json"
# What the folders of answers that were scored again begin with, beside the results of those who gave them.
RESCORED = "rescored-"
_MOST_BYTES = 2_000_000_000

# What a guard sees of a response; `apart`: thought and answer, each for itself.
ScoreMode = Literal["full", "answer", "reasoning", "apart"]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a task's value means. `better` says which way a model improves."""

    name: str
    title: str
    better: Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One model and its run. `place` is an endpoint's address or a checkpoint's folder; hashes where there are weights.

    `base` and `variant` name the row of the study's table that it is compared with, "" where there is none.
    `trained_on` names the release that a student's own record names, and `rehearsed` says that the rehearsal teacher
    wrote its rows. `attacks_asked` and `attacks_kept` count prompts that an attacker wrote without a look at the model:
    those that were asked for, and those that were kept from before.
    """

    label: str
    kind: Literal["endpoint", "checkpoint"]
    name: str
    place: str
    weights_sha256: str | None
    base: str
    variant: str
    seconds: float
    output_tokens: int
    trained_on: str = ""
    rehearsed: bool = False
    attacks_asked: int = 0
    attacks_kept: int = 0


@dataclass(frozen=True, slots=True)
class DataUsed:
    """Where a task's questions came from: a file's or dataset's name, its revision and the sha256 of what was read."""

    source: str
    revision: str
    sha256: str
    license: str
    questions: int
    left_out: int


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task as it was asked: everything that decides its figures. `settings` are the protocol's, printed with them.

    `roles` maps attacker, judge, guard to a model's name; `prompts` maps a prompt file to its sha256. `logs` maps a
    model's label to Inspect's log, relative to results.json.
    """

    name: str
    measure: Measure
    protocol: str
    settings: dict[str, Any]
    score: ScoreMode
    data: DataUsed
    roles: dict[str, str]
    prompts: dict[str, str]
    logs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Rate:
    """Counts of one model on one task, or on one `group` of it ("" is all). `truncated` overlaps with the others.

    `questions` counts distinct questions; n counts answers, several a question where a task samples several.
    `pass_at` maps k to pass@k, where there are several samples a question.
    """

    model: str
    task: str
    group: str
    questions: int
    expected: int
    n: int
    hits: float
    misses: float
    unscored: int
    errored: int
    truncated: int
    rate: Interval
    pass_at: dict[int, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every expected answer came and has a verdict."""
        return self.n == self.expected and not self.unscored and not self.errored

    @property
    def known(self) -> bool:
        """Whether there is a rate: of answers without a single verdict it would be a 0 that nobody measured."""
        return self.hits + self.misses > 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same questions, paired by id. `detectable` is the smallest difference in rates this n can show.

    It is None where not even all of the questions would be enough. Of several answers to a question more than half must
    be hits for the question to be one; a question that answers without a verdict leave open is left out of the test.
    """

    task: str
    group: str
    first: str
    second: str
    test: McNemar
    detectable: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `value` is 0 to 1, None with a reason in `unscored`, or with the failure in `error`.

    `question` is the dataset's, `asked` the last prompt sent (an attack's, where there is one). `detail` is the task's
    own: a guard's categories, a class of refusal, an attack's rating. `topic` is what the question is about, where that
    is not its `category`. The texts are hostile: escape them.
    """

    model: str
    task: str
    id: str
    epoch: int
    category: str
    question: str
    asked: str
    reasoning: str
    answer: str
    value: float | None
    unscored: str
    error: str
    truncated: bool
    stop_reason: str
    output_tokens: int
    detail: dict[str, Any]
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """The whole evaluation, in the order of models, tasks and questions."""

    format: int
    suite: str
    models: tuple[Measured, ...]
    tasks: tuple[TaskRun, ...]
    rates: tuple[Rate, ...]
    comparisons: tuple[Comparison, ...]
    answers: tuple[Answer, ...]


def write_results(results: Results, path: Path) -> None:
    """Write them atomically."""
    write_json(path, TypeAdapter(Results).dump_python(results, mode="json"))


def read_results(path: Path) -> Results:
    """Read results.json, or the one in a folder.

    Raises:
        UserError: the file is missing, is no `results.json`, or was written in another format.
    """
    file = path / NAME if path.is_dir() else path
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"'{file}' has {file.stat().st_size:,} bytes, more than results have ({_MOST_BYTES:,}).")
        results = TypeAdapter(Results).validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"There are no results at '{file}'. Run first: saferthoughts eval") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the file"
        raise UserError(
            f"'{file}' does not hold results ({where}: {wrong['msg']}). The eval command that wrote it makes "
            "it again from its logs, and asks nobody for what is in them."
        ) from error
    for task in results.tasks:
        for name in task.logs.values():
            check_log_name(name)
    if results.format != FORMAT:
        raise UserError(f"'{file}' has the format {results.format}, this version reads {FORMAT}. Evaluate again.")
    models = tuple(replace(model, variant=method_now(model.variant)) for model in results.models)
    return replace(results, models=models)
