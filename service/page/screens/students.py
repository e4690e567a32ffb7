"""Students: /ui/students, and one of them with its card, lineage and a question: /ui/students/RUN/NAME."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.errors import UserError
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.models import api_models, evaluations, students
from service.models.model_forms import push_in, question_in
from service.page.forms import Form
from service.page.screens.shared import Place, Posted, Viewer, page, to

router = APIRouter(include_in_schema=False)
PLACE = Place(50, "Students", "/ui/students")


@router.get("/ui/students")
def list_students(caller: Viewer, state: AppStateOf) -> Response:
    """Every student that was trained here."""
    return page("students", caller, students=students.listed(state))


@router.get("/ui/students/{name}/{student}")
def show_student(name: str, student: str, caller: Viewer, state: AppStateOf) -> Response:
    """One student."""
    return page("student", caller, **_shown(state, name, student))


@router.get("/ui/students/{name}/{student}/lineage")
def lineage(name: str, student: str, caller: Viewer, state: AppStateOf) -> Response:
    """What the verification of the release behind it finds."""
    return page("lineage", caller, lineage=api_models.lineage(name, student, caller, state))


@router.post("/ui/students/{name}/{student}/chat")
async def chat(name: str, student: str, caller: Viewer, state: AppStateOf, form: Posted, request: Request) -> Response:
    """One question, and the replies to it."""
    check_role(caller, "run")
    part = request.headers.get("hx-target") == "replies"
    try:
        wanted = question_in(form)
        replies, message = await api_models.chat(name, student, wanted, caller, state, request), ""
    except (UserError, Problem) as error:
        replies, message = [], str(error)
    values = {"replies": replies, "message": message, "form": form}
    if part:
        return page("replies", caller, **values)
    return page("student", caller, 422 if message else 200, **{**_shown(state, name, student), **values})


@router.post("/ui/students/{name}/{student}/push")
def push(name: str, student: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Put a student on the Hub."""
    check_role(caller, "publish")
    api_models.push(name, student, push_in(form), caller, state)
    return to(f"/ui/runs/{quote(name)}")


def _shown(state: AppState, name: str, student: str) -> dict[str, Any]:
    place = students.folder_of(state, name, student)
    found = students.state_of(state.runs, name, student, place)
    return {
        "one": found,
        "card": students.card_of(place),
        "has_base": students.has_base(place),
        "measured": evaluations.state_of(state, name, evaluations.OWN) if found.measured else None,
        "form": Form({}),
        "replies": [],
        "message": "",
    }
