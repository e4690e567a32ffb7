"""Studies, to look at: /ui/studies, and the steps of one: /ui/studies/NAME."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.access import AppStateOf
from service.models import api_models, studies
from service.page.screens.shared import Place, Viewer, page

router = APIRouter(include_in_schema=False)
PLACE = Place(70, "Studies", "/ui/studies")


@router.get("/ui/studies")
def list_studies(caller: Viewer, state: AppStateOf) -> Response:
    """The studies that come with the project."""
    return page("studies", caller, studies=studies.listed(state))


@router.get("/ui/studies/{name}")
async def show_study(name: str, caller: Viewer, state: AppStateOf, request: Request) -> Response:
    """The steps of a study, each below what it waits for."""
    steps = await api_models.study(name, caller, state, request)
    return page("study", caller, name=name, steps=steps, levels=_levels([(one.step, one.needs) for one in steps]))


def _levels(steps: list[tuple[str, list[str]]]) -> dict[str, int]:
    """How many steps deep each is; steps come after what they need."""
    found: dict[str, int] = {}
    for step, needs in steps:
        found[step] = 1 + max((found.get(one, 0) for one in needs), default=0)
    return found
