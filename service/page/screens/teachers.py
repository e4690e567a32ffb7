"""Who may answer, and whether they do: /ui/teachers."""

from fastapi import APIRouter
from starlette.responses import Response

from service.http.access import AppStateOf, check_role
from service.page.screens.shared import Place, Posted, Viewer, page, to
from service.run import teachers

router = APIRouter(include_in_schema=False)
PLACE = Place(90, "Teachers", "/ui/teachers")


@router.get("/ui/teachers")
def list_teachers(caller: Viewer, state: AppStateOf) -> Response:
    """Who may answer."""
    return page("teachers", caller, teachers=teachers.listed(state))


@router.post("/ui/teachers/{name}/test")
def test_teacher(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Ask a teacher a question, and show the list again."""
    check_role(caller, "run")
    teachers.test(state, name)
    return to("/ui/teachers")
