"""Training in a run: /ui/runs/RUN/training with its form, plan, live figures, stop and go on."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipelines.errors import UserError
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.http.shapes import RunName
from service.models import api_models, charts, students, training
from service.models.model_forms import training_in
from service.models.model_shapes import TrainingState
from service.page.forms import Form
from service.page.screens.shared import Posted, Viewer, page, to
from service.releases.releases import address_of, pulled
from service.run import api

router = APIRouter(include_in_schema=False)
ReleaseKey = Annotated[str, Query(max_length=300)]
# What is drawn of each step, and what it is called.
_DRAWN = {"loss": "loss", "learning_rate": "learning rate", "trained_tokens_per_s": "trained tokens a second"}


@router.get("/ui/runs/{name}/training")
def show_training(
    name: str,
    caller: Viewer,
    state: AppStateOf,
    recipe: str = "",
    student: RunName = students.OWN,
    release: ReleaseKey = "",
) -> Response:
    """The training of a run's student: what it does now, and the form of the next one."""
    return page("training", caller, **_shown(state, name, student, recipe, Form({"release": [release]})))


@router.get("/ui/training")
def choose_run(caller: Viewer, run: RunName, release: ReleaseKey = "") -> Response:
    """To the training of a run that was chosen for a release."""
    return to(f"/ui/runs/{quote(run)}/training?{urlencode({'release': release})}")


@router.get("/ui/runs/{name}/training/live")
def training_part(name: str, caller: Viewer, state: AppStateOf, student: RunName = students.OWN) -> Response:
    """The part of that page that moves."""
    return page("training_part", caller, **_live(state, name, student))


@router.post("/ui/runs/{name}/training/start")
async def start_training(name: str, caller: Viewer, state: AppStateOf, form: Posted, request: Request) -> Response:
    """Plan a training, or start it; the form again with what does not fit."""
    check_role(caller, "run")
    try:
        wanted = training_in(form)
        if form.text("do") == "plan":
            found = await api_models.plan_training(name, wanted, caller, state, request)
            part = request.headers.get("hx-target") == "plan"
            shown = {} if part else _shown(state, name, wanted.name, wanted.recipe, form)
            return page("plan" if part else "training", caller, **{**shown, "plan": found, "message": ""})
        await asyncio.to_thread(api_models.train, name, wanted, caller, state)
    except (UserError, Problem) as error:
        if request.headers.get("hx-target") == "plan":
            return page("plan", caller, plan=None, message=str(error))
        shown = _shown(state, name, students.OWN, form.text("recipe"), form)
        return page("training", caller, 422, **{**shown, "message": str(error)})
    return to(f"/ui/runs/{quote(name)}/training?student={quote(wanted.name)}")


@router.post("/ui/runs/{name}/training/{action}")
def act(name: str, action: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Stop the training, or go on with it."""
    check_role(caller, "run")
    student = students.OWN
    if action == "stop":
        api.cancel(name, caller, state)
    elif action == "again":
        place = training.output_of(training.again(state, state.run(name), caller))
        student = place.name if place else student
    else:
        raise Problem(404, f"There is no button '{action}'.")
    return to(f"/ui/runs/{quote(name)}/training?student={quote(student)}")


def _shown(state: AppState, name: str, student: str, recipe: str, form: Form) -> dict[str, Any]:
    run = state.run(name)
    known = training.choices(state)
    chosen = next((one for one in known.recipes if one.name == recipe), None)
    if chosen is None:
        chosen = next((one for one in known.recipes if one.name == "smollm2-135m-cpu"), known.recipes[0])
    own = {"": "this run's own"} if (run.path / "release" / "lineage.json").exists() else {}
    known_releases = own | {f"pulled:{one}": f"{address_of(one)}, pulled" for one in pulled(state.runs)}
    asked = form.text("release")
    release = asked if asked in known_releases else next(iter(known_releases), "")
    rows = training.configurations(state, run, release)
    return {
        "releases": known_releases,
        "release": release,
        **_live(state, name, student),
        "choices": known,
        "recipe": chosen,
        "rows": rows,
        "drawn": _drawn_of(chosen.mixture, rows),
        "form": form,
        "message": "",
        "plan": None,
        "tab": "training",
    }


def _drawn_of(mixture: str | dict[str, int], rows: dict[str, int]) -> dict[str, int]:
    """Rows that a form begins with: the recipe's, and no more than the release has."""
    if isinstance(mixture, str):
        from training.mixtures.mixture_rows import load_blend

        mixture = dict(load_blend(mixture).release)
    return {config: min(count, rows[config]) for config, count in mixture.items() if config in rows}


def _live(state: AppState, name: str, student: str) -> dict[str, Any]:
    found = training.state_of(state, state.run(name), student)
    return {
        "name": name,
        "found": found,
        "run": state.run_state(name),
        "drawings": _charts(found),
        "others": [own for run, own, _ in students.folders(state) if run == name],
    }


def _charts(found: TrainingState) -> list[charts.Chart]:
    steps = [one.step for one in found.steps]
    lines = [charts.line(title, steps, [getattr(one, key) for one in found.steps]) for key, title in _DRAWN.items()]
    return [one for one in lines if one is not None]
