"""Requests and answers about students, trainings, evaluations and studies. Names come from lists, never as paths."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from pipelines.settings.parts import Part
from service.http.shapes import JobState, RepoName, RunName, Words

Listed = Annotated[str, Field(min_length=1, max_length=200)]
Key = Annotated[str, Field(min_length=1, max_length=300)]
Figure = float | None


class TrainingSettings(Part):
    """Keys of a recipe that a request may set; what is left out is the recipe's."""

    epochs: int | None = Field(default=None, ge=1, le=1000)
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    batch_size: int | None = Field(default=None, ge=1, le=4096, description="rows of a process at once")
    max_length: int | None = Field(default=None, ge=16, le=10**6, description="tokens of a row")
    overlong_share: float | None = Field(default=None, ge=0, lt=1, description="of rows that may be longer, left out")
    seed: int | None = Field(default=None, ge=0, lt=2**32)


class TrainingWanted(Part):
    """A training on the release of a run, or on another one that is here."""

    recipe: Listed
    release: Key | None = Field(default=None, description="a key of GET /releases; the run's own if not given")
    name: RunName = Field(default="model", description="of the student")
    objective: Listed | None = Field(default=None, description="the recipe's if not given")
    mixture: Listed | dict[Listed, Annotated[int, Field(ge=1, le=10**9)]] | None = Field(
        default=None, description="a mixture's name, or rows by configuration of the release"
    )
    student: Listed | None = Field(default=None, description="a name of GET /recipes; the recipe's own if not given")
    settings: TrainingSettings = TrainingSettings()
    replace: bool = Field(default=False, description="a student of that name may be replaced")


class RecipeState(BaseModel):
    """A recipe by name, with the values that a form begins with."""

    name: str
    objective: str
    student: Words
    mixture: str | dict[str, int]
    settings: TrainingSettings


class TrainingChoices(BaseModel):
    """What a training may name."""

    recipes: list[RecipeState]
    objectives: list[str]
    mixtures: list[str]
    students: list[str]


class PlanState(BaseModel):
    """What is proven and planned of a training that has not begun. Memory in GB, time in seconds."""

    plan: dict[str, Any]
    proof: dict[str, Any]
    decoding: Words


class TrainingStep(BaseModel):
    """The figures of one step; null where the trainer gave none."""

    step: int
    of: int
    at: float
    loss: Figure = None
    learning_rate: Figure = None
    trained_tokens_per_s: Figure = None
    grad_norm: Figure = None
    reward: Figure = None


class TrainingState(BaseModel):
    """A student's training so far: its last job, and its steps (at most 400, evenly taken, with the last)."""

    run: str
    student: str
    finished: bool
    job: JobState | None
    steps: list[TrainingStep]


class StudentState(BaseModel):
    """A trained student. Sizes in bytes; `release` is what its own record says."""

    run: str
    student: str
    base: Words
    objective: Words
    size: int
    trained_at: float
    release: Words
    rehearsal: bool
    release_is: Literal["here", "changed", "gone", "not recorded"] = Field(
        description="whether the release that the student was trained on is here as it was"
    )
    pulled: str = Field(description="the name of the pulled release it was trained on; empty where it is the run's")
    rows: int | None
    steps: int | None
    tokens_per_s: Figure
    measured: bool = Field(description="whether there is an evaluation of it")


class Lineage(BaseModel):
    """What `release verify` finds of the release behind a student, and what people said of its rows."""

    checked: int
    faults: list[Words]
    signature: Words | None
    votes: Words


class Question(Part):
    """One question to a student; there is no conversation."""

    text: str = Field(min_length=1, max_length=20_000)
    max_tokens: int = Field(default=256, ge=1, le=4096)
    beside_base: bool = Field(default=True, description="ask the student as it was, too")


class ReplyState(BaseModel):
    """A reply; `cut` says why it ends before its end."""

    model: Words
    reasoning: Words
    answer: Words
    cut: Words | None


class PushWanted(Part):
    """The Hub repository that a student goes to."""

    repo: RepoName
    private: bool = True


class EvaluationWanted(Part):
    """An evaluation of a run's student, or of a teacher."""

    run: RunName | None = Field(default=None, description="whose student is measured; give this or teacher")
    student: RunName = Field(default="model", description="model: the run's student before and after its training")
    teacher: Listed | None = None
    name: RunName = Field(default="eval", description="of the evaluation")
    suite: Listed = "quick"
    tasks: tuple[Listed, ...] = Field(default=(), max_length=64, description="in place of the suite's")
    protocol: Listed | None = None
    limit: int | None = Field(default=None, ge=1, le=10**6, description="questions of a task, the first ones")
    score: Literal["full", "answer", "reasoning", "apart"] = "full"
    guard: Listed | None = None
    judge: Listed | None = None
    attacker: Listed | None = None
    release: Key | None = Field(
        default=None, description="a key of GET /releases whose prompts are left out; a student's own if not given"
    )
    base: str = Field(default="", max_length=200, description="the model of the study's table to compare with")
    variant: str = Field(default="", max_length=200, description="the row of that model")
    replace: bool = Field(default=False, description="results of that name may be replaced")


class EvaluationChoices(BaseModel):
    """What an evaluation may name."""

    suites: dict[str, list[str]]
    tasks: list[str]
    protocols: list[str]
    guards: list[str]
    teachers: list[str]
    study: dict[str, list[str]] = Field(description="rows of the study's tables by model")


class EvaluationPlanState(BaseModel):
    """What an evaluation would ask; `requests` by who answers, cost in US dollars, null where no price is known."""

    models: list[str]
    tasks: list[dict[str, Any]]
    requests: dict[str, int]
    tokens: int
    cost: Figure
    unpriced: list[str]
    assumed: str


class RateState(BaseModel):
    """A rate over `scored` of `n` answers that came of `due`, with its 95 % interval; null before there is one."""

    model: Words
    task: str
    group: Words
    title: Words
    better: str
    due: int
    n: int
    scored: float
    unscored: int
    errored: int
    rate: Figure
    low: Figure
    high: Figure


class EvaluationState(BaseModel):
    """An evaluation: its job, whether its results are there, and its rates, live ones while it runs."""

    run: str
    evaluation: str
    job: JobState | None
    finished: bool
    at: float | None = Field(description="when the results were written")
    suite: Words
    models: list[Words]
    rates: list[RateState]


class AnswerState(BaseModel):
    """One answer with its verdict; the texts are as the model wrote them."""

    model: Words
    task: Words
    id: Words
    epoch: int
    category: Words
    question: Words
    asked: Words
    reasoning: Words
    answer: Words
    outcome: Literal["hit", "miss", "unscored", "error"]
    value: Figure
    why: Words = Field(description="why there is no verdict, or what failed")
    truncated: bool
    detail: dict[Words, Words]


class AnswersPage(BaseModel):
    """Answers that fit, the mildest first, and how many there are in all."""

    total: int
    offset: int
    answers: list[AnswerState]


class ComparisonState(BaseModel):
    """Two models on a task: an exact McNemar test paired by question; null where it was not asked in the same way."""

    task: str
    first: Figure
    second: Figure
    better: str
    pairs: int | None
    only_first: int | None
    only_second: int | None
    left_out: int | None
    p: Figure
    detectable: Figure
    why_not: Words


class StudyState(BaseModel):
    """A study by name."""

    name: str
    title: Words
    begun: bool


class StudyStep(BaseModel):
    """A step of a study, and the steps that it waits for."""

    step: Words
    kind: str
    needs: list[Words]
    state: str
    reason: Words
    seconds: float
    at: Words
