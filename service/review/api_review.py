"""The HTTP API of people's review, and of what a team asks beside its runs: costs, judges, keys.

The Argilla server itself is started and stopped on the page: its new accounts are for a person's eyes.
"""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from pipelines.settings.judge import load_judges
from service.http import shapes
from service.http.access import AppStateOf
from service.jobs.keys import key_states
from service.review.argilla import ArgillaState
from service.review.reviews import Applying, ReviewState, apply_votes, preview_apply, pull_votes, review_state
from service.run import api
from service.run.costs import Costs, as_csv, costs_of
from service.run.judges import JudgeState, judge_states

router = APIRouter(responses=api.router.responses)


@router.get("/argilla", tags=["review"])
def show_argilla(caller: api.Reader, state: AppStateOf) -> ArgillaState:
    """Where people vote, and whether it runs."""
    return state.argilla.state()


@router.get("/runs/{name}/review", tags=["review"])
def show_review(name: str, caller: api.Reader, state: AppStateOf) -> ReviewState:
    """A run's review: rows sent, votes on the server and pulled, agreement, gate."""
    return review_state(state, state.run(name))


@router.post("/runs/{name}/review/pull", status_code=202, tags=["review"])
def pull(name: str, caller: api.Runner, state: AppStateOf) -> shapes.RunState:
    """Fetch people's votes and evaluate them."""
    pull_votes(state, state.run(name), caller.name)
    return state.run_state(name)


@router.post("/runs/{name}/review/preview", tags=["review"])
def preview(name: str, caller: api.Runner, state: AppStateOf) -> dict[str, Any]:
    """Which rows would leave the accepted ones, and which come back; changes nothing."""
    return preview_apply(state, state.run(name))


@router.post("/runs/{name}/review/apply", status_code=202, tags=["review"])
def apply(name: str, wanted: Applying, caller: api.Runner, state: AppStateOf) -> shapes.RunState:
    """Let people's majority overrule the judges, and check the run anew, with the votes of a preview."""
    apply_votes(state, state.run(name), wanted, caller.name)
    return state.run_state(name)


@router.get("/costs", tags=["service"])
def costs(caller: api.Reader, state: AppStateOf) -> Costs:
    """What the newest runs cost, a line for each run, day and model."""
    return costs_of(state)


class _Csv(PlainTextResponse):
    media_type = "text/csv"


@router.get("/costs.csv", tags=["service"], response_class=_Csv)
def costs_csv(caller: api.Reader, state: AppStateOf) -> Response:
    """The same as a table for spreadsheets; what has no known price is empty, never 0."""
    headers = {"content-disposition": 'attachment; filename="costs.csv"'}
    return _Csv(as_csv(costs_of(state)), headers=headers)


@router.get("/judges", tags=["service"])
def judges(caller: api.Reader, state: AppStateOf) -> list[JudgeState]:
    """Who can judge: what each looks for, licence, size, published figures, and which runs it judges."""
    return judge_states(state).judges


@router.get("/keys", tags=["service"])
def keys(caller: api.Reader, state: AppStateOf) -> list[dict[str, Any]]:
    """Which variable each teacher, judge and server needs, and whether it is set; never its value."""
    return [asdict(one) for one in key_states(state.keys, state.known_teachers(), load_judges())]
