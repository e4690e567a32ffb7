"""Studies that come with the project, and how the steps of one are.

Reads through `saferthoughts study status`, in a child: a study's steps are commands, which the command line reads.
"""

from pydantic import TypeAdapter

from pipelines.errors import one_line
from saferthoughts.studies.spec import load_study, study_names
from service.app_state import AppState
from service.http.problems import Problem
from service.models.model_shapes import StudyState, StudyStep


def listed(state: AppState) -> list[StudyState]:
    """Every study by name."""
    place = state.runs.absolute().parent / "studies"
    return [
        StudyState(name=name, title=load_study(name).title, begun=(place / name / "steps.json").is_file())
        for name in study_names()
    ]


def words_of(name: str) -> tuple[str, ...]:
    """The command that says how a study is.

    Raises:
        Problem: 404, there is none of that name.
    """
    if name not in study_names():
        raise Problem(404, f"There is no study '{one_line(name, 80)}'. Studies: {', '.join(study_names())}.")
    return ("study", "status", name, "--json")


def steps_of(found: object) -> list[StudyStep]:
    """What that command prints."""
    return TypeAdapter(list[StudyStep]).validate_python(found)
