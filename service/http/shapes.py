"""What goes over HTTP: requests and answers. The parts of a run's configuration are those of the command line."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from pipelines.errors import visible
from pipelines.settings.config import Prompts, Release, Repairing, Roles
from pipelines.settings.judge import Judging
from pipelines.settings.parts import Part
from service.jobs.queue import State

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="a folder's name")]
REPO_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
RepoName = Annotated[str, Field(pattern=REPO_PATTERN, examples=["me/safe"])]
VERSION_PATTERN = r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$"
Version = Annotated[str, Field(pattern=VERSION_PATTERN, examples=["1.0.0"])]


Words = Annotated[str, AfterValidator(visible)]
"""A text of a run or a model as it is shown: what cannot be seen is written out."""
# Rows that people are sent by their ids.
MOST_REVIEWED = 2000


class Budget(Part):
    """What a run may spend, all its calls together."""

    max_cost: float | None = Field(default=None, ge=0, le=1e9, description="US dollars")
    max_tokens: int | None = Field(default=None, ge=0, le=10**15, description="tokens of input and output")


class Wanted(Part):
    """A run's configuration as far as a request may set it; what is left out has the command line's default.

    Teachers and judges go by name. `prompts.source` is "bundled" or the name of a set that the service was started
    with; no path and no address is taken.
    """

    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    prompts: Prompts | None = None
    variants: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=32)
    benign_variant: str | None = None
    samples: int | None = Field(default=None, ge=1, le=64)
    roles: Roles | None = None
    judging: Judging | None = None
    repair: Repairing | None = None
    release: Release | None = None


class NewRun(Part):
    """A run to start."""

    name: RunName
    config: Wanted = Wanted()
    budget: Budget = Budget()


class AnsweredAgain(Part):
    """A run like the one behind a release, with another teacher."""

    name: RunName
    teacher: str = Field(max_length=200)
    general_teacher: str | None = Field(default=None, max_length=200)
    budget: Budget = Budget()


class Again(AnsweredAgain):
    """The same of a release of a run here."""

    release: RunName = Field(description="the run whose release is taken")


class PulledAgain(AnsweredAgain):
    """The same of a release of somebody else, whose texts are agreed to before they are sent."""

    judges: dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=200)]] = Field(
        default={}, max_length=20, description="teachers that answer in the place of judges that are not here"
    )
    agreed: str = Field(
        default="", pattern=r"^([0-9a-f]{64})?$", description="as the preview has it; empty for the preview"
    )


class AgainPreview(BaseModel):
    """What will be asked of whom, with every text that is not of this project."""

    text: str
    agreed: str = Field(description="the text's sha256: consent to exactly this")


class ReleaseWanted(Part):
    """How a release is built."""

    version: Version | None = Field(default=None, description="the run's own if not given")


class ReviewWanted(Part):
    """What is sent to Argilla: the rows of a budget of votes, or a sample of so many rows."""

    votes: int | None = Field(default=None, ge=1, le=100_000, description="a budget of votes; not beside `rows`")
    rows: int | None = Field(default=None, ge=1, le=100_000, description="the command line's default if not given")
    min_votes: int | None = Field(default=None, ge=1, le=20, description="people that each row needs")
    ids: tuple[Annotated[str, Field(pattern=r"^\S{1,64}$")], ...] | None = Field(
        default=None, min_length=1, max_length=MOST_REVIEWED, description="these responses in place of a sample"
    )
    assist: bool = Field(default=False, description="show the judges' labels; such votes never score the judges")

    @model_validator(mode="after")
    def _one_way(self) -> "ReviewWanted":
        if self.votes is not None and (self.rows is not None or self.assist):
            raise ValueError("votes chooses the rows itself, and blind: leave rows and assist out, or votes")
        if self.ids is not None and (self.votes is not None or self.rows is not None or self.assist):
            raise ValueError("ids names the rows: leave votes, rows and assist out, or ids")
        return self


class Renaming(Part):
    """Another name for a run."""

    name: RunName


class Deletion(Part):
    """That a run is to be deleted."""

    confirm: str = Field(max_length=64, description="the run's name, typed")


class Content(BaseModel):
    """A file or folder of a run, and its bytes."""

    name: Words
    size: int


class PublishWanted(Part):
    """The Hub repository that a release goes to."""

    repo: RepoName
    private: bool = False
    gated: bool = False
    dry_run: bool = False


class PullWanted(Part):
    """A release of somebody else on the Hub."""

    repo: RepoName
    version: Version | None = Field(default=None, description="the newest if not given")


class Answered(BaseModel):
    """A question to ask of somebody's release, with what was found."""

    question: str
    answers: list[Words]
    reassuring: bool


class JobState(BaseModel):
    """One job of a run. Times are seconds since 1970."""

    id: int
    action: str
    state: State
    asked_by: str
    created: float
    started: float | None
    finished: float | None
    attempts: int
    exit_code: int | None
    waiting_before: int | None = Field(description="jobs that come first, while it waits")
    message: Words
    side: bool = Field(description="whether it is beside the run's own work: a release, a review, a publication")
    fault: Literal["", "run", "job", "service"] = Field(
        description="what is at fault where it failed: the run, as its message says; the job, whose process died; the "
        "service, which could not start or watch it"
    )


class Progress(BaseModel):
    """Progress of the running stage. Rates are units a second, times seconds, cost US dollars."""

    stage: Words
    done: int
    total: int | None
    unit: Words
    rate: float
    cost: float
    left_s: float | None
    words: Words


class Step(BaseModel):
    """One bar of the funnel: how many of how many; None where the stage has not run."""

    name: str
    count: int | None
    of: int | None


class ErrorLine(BaseModel):
    """What requests of the last call failed with, and how many did."""

    text: Words
    count: int


class RunState(BaseModel):
    """A run: what it has so far, what is under way, what it took."""

    name: str
    state: Literal[
        "new", "queued", "running", "cancelling", "stopped", "failed", "incomplete", "review", "released", "broken"
    ] = Field(description="review: only its release is missing, and waits for what the run requires of people's votes")
    problem: Words = Field(description="what is wrong with the run itself, or what its review lacks, in a line")
    created: Words
    started_by: Words = Field(description="whose token its first job here was asked for with; empty where none was")
    stage: Words = Field(description="the stage under way, or the last one that ended")
    progress: Progress | None
    funnel: list[Step]
    stages: dict[Words, Words] = Field(description="when each stage last ended")
    variants: list[Words]
    teachers: list[Words]
    rehearsal: bool = Field(description="whether the rehearsal teacher, which is no model, answers or judges")
    answers: int
    failures: int = Field(description="requests of the last call that finally failed")
    errors: list[ErrorLine] = Field(description="what they failed with, the most frequent first, five at most")
    input_tokens: int
    output_tokens: int
    cost: float | None = Field(description="US dollars, of answers whose price is known; null where none is")
    budget: Budget = Field(description="what all its calls together may take, as its last job was given it")
    version: Words | None = Field(description="of the release, where there is one")
    job: JobState | None = Field(description="the newest one")
    side_jobs: list[JobState] = Field(description="the last one of each kind that is over; they change no state")

    @property
    def state_words(self) -> str:
        """The state as people read it."""
        return "waits for review" if self.state == "review" else self.state


class ReleaseState(BaseModel):
    """A release of a run, or one that was pulled; `key` names it in requests."""

    key: str
    name: str
    title: Words
    version: Words
    rows: int | None
    licence: Words
    problem: Words = Field(description="why it cannot be read; empty where it can")
    job: JobState | None = Field(description="the pull of it, where it was pulled")


class TeacherTest(BaseModel):
    """The result of a teacher's last test by this service."""

    at: float
    answers: bool
    message: str


class TeacherState(BaseModel):
    """A teacher that runs may name. Where it is and what its key is are the service's own affair."""

    name: str
    model: str
    kind: Literal["rehearsal", "endpoint", "batch", "served"]
    key: Literal["not needed", "set", "missing"]
    priced: bool
    test: TeacherTest | None


class EstimateState(BaseModel):
    """A run's estimated requests and cost, from answers of earlier runs; None where those give no estimate."""

    requests: int
    tokens: float | None
    cost: float | None
    message: str
    warnings: list[str] = Field(description="what such a run would lack, such as a judge of safety")


class RowsPage(BaseModel):
    """Rows of a run that fit, in the order that was asked for, and how many there are in all."""

    total: int
    offset: int
    rows: list[dict[str, Any]]


class Health(BaseModel):
    """That the service is there."""

    status: Literal["ok"]
    version: str
