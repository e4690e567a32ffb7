"""Evaluations: /ui/evaluations with the form of a new one, /ui/evaluations/NAME/EVALUATION, and two compared."""

import asyncio
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.errors import UserError
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.models import api_models, evaluation_results, evaluations, students
from service.models.api_models import Named, Offset
from service.models.model_forms import evaluation_in
from service.page.forms import Form
from service.page.screens.shared import Place, Posted, Viewer, page, to
from service.releases import releases

PER_PAGE = 10

router = APIRouter(include_in_schema=False)
PLACE = Place(60, "Evaluations", "/ui/evaluations")


@router.get("/ui/evaluations")
def list_evaluations(caller: Viewer, state: AppStateOf, measured: Named = "") -> Response:
    """Every evaluation, and the form of a new one."""
    return page("evaluations", caller, **_listed(state, Form({"measured": [measured]} if measured else {})))


@router.post("/ui/evaluations")
async def start(caller: Viewer, state: AppStateOf, form: Posted, request: Request) -> Response:
    """Show what an evaluation would ask, or start it; the form again with what does not fit."""
    check_role(caller, "run")
    part = request.headers.get("hx-target") == "plan"
    try:
        wanted = evaluation_in(form)
        if form.text("do") == "plan":
            found = await api_models.plan_evaluation(wanted, caller, state, request)
            shown = {} if part else _listed(state, form)
            name = "evaluation_plan" if part else "evaluations"
            return page(name, caller, **{**shown, "plan": found, "message": ""})
        name, _ = await asyncio.to_thread(evaluations.start, state, wanted, caller)
    except (UserError, Problem) as error:
        if part:
            return page("evaluation_plan", caller, plan=None, message=str(error))
        return page("evaluations", caller, 422, **{**_listed(state, form), "message": str(error)})
    return to(f"/ui/evaluations/{quote(name)}/{quote(wanted.name)}")


@router.get("/ui/evaluations/compare")
def compare(caller: Viewer, state: AppStateOf, first: Named = "", second: Named = "") -> Response:
    """Two models of any evaluations."""
    message, found = "", []
    try:
        found = api_models.compared(state, first, second) if first and second else []
    except (UserError, Problem) as error:
        message = str(error)
    models = [
        f"{name}/{own}/{model}" for name, own, _ in evaluations.folders(state) for model in _models(state, name, own)
    ]
    values = {"models": models, "first": first, "second": second, "found": found, "message": message}
    return page("compare_models", caller, **values)


@router.get("/ui/evaluations/{name}/{evaluation}")
def show(
    name: str,
    evaluation: str,
    caller: Viewer,
    state: AppStateOf,
    task: Named = "",
    model: Named = "",
    outcome: Named = "",
    offset: Offset = 0,
) -> Response:
    """One evaluation: its rates, live ones while it runs, and its answers to read."""
    found = evaluations.state_of(state, name, evaluation)
    asked = {"task": task, "model": model, "outcome": outcome}
    answers, message = None, ""
    if found.finished:
        try:
            place = evaluations.folder_of(state, name, evaluation)
            answers = evaluation_results.answers(place, task, model, outcome, offset, PER_PAGE)
        except UserError as error:
            message = str(error)
    query = urlencode({key: value for key, value in asked.items() if value})
    values = {"found": found, "answers": answers, "message": message, "asked": asked, "query": query}
    return page("evaluation", caller, **values, offset=offset, per_page=PER_PAGE)


@router.get("/ui/evaluations/{name}/{evaluation}/live")
def live(name: str, evaluation: str, caller: Viewer, state: AppStateOf) -> Response:
    """The rates of an evaluation that runs; when it is over, the page is loaded again."""
    found = evaluations.state_of(state, name, evaluation)
    answer = page("evaluation_part", caller, found=found)
    if found.job is None or found.job.state not in ("queued", "running", "cancelling"):
        answer.headers["hx-refresh"] = "true"
    return answer


@router.get("/ui/evaluations/{name}/{evaluation}/report")
def report(name: str, evaluation: str, caller: Viewer, state: AppStateOf) -> Response:
    """The report of an evaluation, framed."""
    evaluations.folder_of(state, name, evaluation)
    return page("evaluation_report", caller, name=name, evaluation=evaluation)


@router.post("/ui/evaluations/{name}/{evaluation}/{action}")
def act(name: str, evaluation: str, action: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Stop an evaluation, or go on with it."""
    check_role(caller, "run")
    if action == "stop":
        evaluations.cancel(state, name)
    elif action == "again":
        evaluations.again(state, name, caller)
    else:
        raise Problem(404, f"There is no button '{action}'.")
    return to(f"/ui/evaluations/{quote(name)}/{quote(evaluation)}")


def _listed(state: AppState, form: Form) -> dict[str, Any]:
    found = [evaluations.state_of(state, name, own, brief=True) for name, own, _ in evaluations.folders(state)]
    return {
        "evaluations": found,
        "choices": evaluations.choices(state),
        "releases": releases.choices(state, ""),
        "students": [f"{run}/{student}" for run, student, _ in students.folders(state)],
        "form": form,
        "plan": None,
        "message": "",
    }


def _models(state: AppState, name: str, evaluation: str) -> list[str]:
    try:
        return evaluations.state_of(state, name, evaluation).models
    except (UserError, Problem):
        return []
