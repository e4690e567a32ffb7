"""Judges as page and API show them: what is published of each, and which of the newest runs it judges."""

from pathlib import Path

from pydantic import BaseModel, Field

from pipelines.errors import UserError
from pipelines.file_marks import KeptWhileUnchanged, mark_of
from pipelines.judges.published import published
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.judge import load_judges
from service.app_state import AppState

_MOST_RUNS = 100
_kept: KeptWhileUnchanged[tuple[tuple[str, str], ...]] = KeptWhileUnchanged(5 * _MOST_RUNS)


class JudgeState(BaseModel):
    """A shipped judge. Figures are those of its authors, on sets of their own choice."""

    name: str
    kind: str
    looks_for: str
    asks: str = Field(description="the model that answers; empty where nobody is asked")
    licence: str
    size: str
    figures: str
    source: str
    runs: list[str] = Field(description="the newest runs that it judges")


class JudgeStates(BaseModel):
    """All judges, and the runs among the newest in which nobody looks for unsafe responses."""

    judges: list[JudgeState]
    unwatched: list[str]
    runs: int
    all_runs: int


def judge_states(state: AppState) -> JudgeStates:
    """Who can judge, and who does."""
    names = state.reader.names()
    judging: dict[str, list[str]] = {}
    unwatched = []
    for name in names[:_MOST_RUNS]:
        path = state.runs / name / "run.yaml"
        try:
            judges = _judges_of(path)
        except (UserError, OSError):
            continue  # the list of runs says what is wrong with it
        for judge, _ in judges:
            judging.setdefault(judge, []).append(name)
        if not any(kind == "safety" for _, kind in judges):
            unwatched.append(name)
    teachers = state.known_teachers()
    listed = [
        JudgeState(
            name=name,
            kind=judge.kind,
            asks=teachers[judge.teacher].model if judge.teacher else "",
            runs=judging.get(name, []),
            **facts.model_dump(),
        )
        for name, (judge, facts) in published().items()
    ]
    return JudgeStates(judges=listed, unwatched=unwatched, runs=len(names[:_MOST_RUNS]), all_runs=len(names))


def _judges_of(path: Path) -> tuple[tuple[str, str], ...]:
    """Name and kind of each judge of a run's configuration."""

    def read() -> tuple[tuple[str, str], ...]:
        config = load_config(RunFolder(path.parent))
        known = load_judges() | config.judges
        return tuple((name, known[name].kind) for name in config.judging.judges if name in known)

    return _kept.get(path, lambda: mark_of(path), read)
