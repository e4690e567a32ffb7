"""Who can judge, and which runs each judges: /ui/judges."""

from fastapi import APIRouter
from starlette.responses import Response

from service.http.access import AppStateOf
from service.page.screens.shared import Place, Viewer, page
from service.run.judges import judge_states

router = APIRouter(include_in_schema=False)
PLACE = Place(100, "Judges", "/ui/judges")


@router.get("/ui/judges")
def list_judges(caller: Viewer, state: AppStateOf) -> Response:
    """Every shipped judge."""
    return page("judges", caller, found=judge_states(state))
