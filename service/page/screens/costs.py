"""What runs cost, by day, teacher, judge and run: /ui/costs."""

from fastapi import APIRouter
from starlette.responses import Response

from saferthoughts.costs import cost_sums
from service.http.access import AppStateOf
from service.page.screens.shared import Place, Viewer, page
from service.run.costs import costs_of

router = APIRouter(include_in_schema=False)
PLACE = Place(80, "Costs", "/ui/costs")
_MOST_DAYS, _MOST_RUNS = 60, 100


@router.get("/ui/costs")
def show_costs(caller: Viewer, state: AppStateOf) -> Response:
    """Sums with bars."""
    found = costs_of(state)
    order = {line.run: number for number, line in reversed(list(enumerate(found.lines)))}
    runs = sorted(cost_sums(found.lines, lambda line: line.run), key=lambda one: order[one.name])
    days = cost_sums(found.lines, lambda line: line.day)
    groups = {
        "day": days[-_MOST_DAYS:],
        "teacher": cost_sums((line for line in found.lines if line.role == "teacher"), lambda line: line.name),
        "judge": cost_sums((line for line in found.lines if line.role == "judge"), lambda line: line.name),
        "run": runs[:_MOST_RUNS],
    }
    left_out = {"day": len(days) - len(groups["day"]), "run": len(runs) - len(groups["run"])}
    total = next(iter(cost_sums(found.lines, lambda line: "all")), None)
    return page("costs", caller, costs=found, groups=groups, left_out=left_out, total=total)
