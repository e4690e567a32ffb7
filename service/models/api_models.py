"""The HTTP API of students, trainings, evaluations and studies; `service/run/api.py` has the rest.

Functions with `async` wait for a child; the others run in threads, since what they do reads files.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from service.app_state import AppState
from service.http import shapes
from service.http.access import AppStateOf
from service.http.downloads import plain
from service.http.problems import Problem
from service.jobs.jobs import cli_arguments
from service.models import evaluation_results, evaluations, model_shapes, students, studies, training
from service.models.children import json_of
from service.run.api import Publisher, Reader, Runner, make_report, sandboxed
from service.run.api import router as api_router

router = APIRouter(responses=api_router.responses)
Offset = Annotated[int, Query(ge=0, le=10**9)]
Named = Annotated[str, Query(max_length=200)]


@router.get("/recipes", tags=["training"])
def list_recipes(caller: Reader, state: AppStateOf) -> model_shapes.TrainingChoices:
    """Recipes with their values, objectives, mixtures, and the students that a training may begin with."""
    return training.choices(state)


@router.post("/runs/{name}/training/plan", tags=["training"])
async def plan_training(
    name: str, wanted: model_shapes.TrainingWanted, caller: Runner, state: AppStateOf, request: Request
) -> model_shapes.PlanState:
    """What a training would take, and the proof that its reasoning is trained on. Loads the student; begins nothing."""
    words = await asyncio.to_thread(training.arguments, state, state.run(name), wanted, False)
    found = await json_of(state, state.asking, request, (*words, "--check", "--json"))
    return model_shapes.PlanState.model_validate(found)


@router.post("/runs/{name}/training", status_code=202, tags=["training"])
def train(
    name: str, wanted: model_shapes.TrainingWanted, caller: Runner, state: AppStateOf
) -> model_shapes.TrainingState:
    """Train a student on a release. POST /runs/{name}/cancel stops it, and a repeated job goes on."""
    run = state.run(name)
    training.start(state, run, wanted, caller)
    return training.state_of(state, run, wanted.name)


@router.get("/runs/{name}/training", tags=["training"])
def training_state(
    name: str, caller: Reader, state: AppStateOf, student: shapes.RunName = students.OWN
) -> model_shapes.TrainingState:
    """A student's training: its job, and loss, learning rate and tokens a second by step."""
    return training.state_of(state, state.run(name), student)


@router.get("/students", tags=["students"])
def list_students(caller: Reader, state: AppStateOf) -> list[model_shapes.StudentState]:
    """Every student that was trained here."""
    return students.listed(state)


@router.get("/students/{name}/{student}/lineage", tags=["students"])
def lineage(name: str, student: str, caller: Reader, state: AppStateOf) -> model_shapes.Lineage:
    """What the verification of the release behind a student finds, and people's votes on its rows."""
    return students.lineage_of(state, students.folder_of(state, name, student))


@router.post("/students/{name}/{student}/chat", tags=["students"])
async def chat(
    name: str,
    student: str,
    wanted: model_shapes.Question,
    caller: Runner,
    state: AppStateOf,
    request: Request,
) -> list[model_shapes.ReplyState]:
    """Ask a student one question, and its base the same. A request that is given up ends the reply."""
    place = students.folder_of(state, name, student)
    base = await asyncio.to_thread(students.base_of, place) if wanted.beside_base else None
    words = ("chat", str(place.absolute()), "--max-tokens", str(wanted.max_tokens), "--json")
    beside = () if base is None else ("--beside", base)
    found = await json_of(state, state.asking, request, (*words, *beside), wanted.text)
    names = [*([] if base is None else ["its base"]), f"{name}/{student}"]
    return [model_shapes.ReplyState(model=label, **one) for label, one in zip(names, found, strict=True)]


@router.post("/students/{name}/{student}/push", status_code=202, tags=["students"])
def push(
    name: str, student: str, wanted: model_shapes.PushWanted, caller: Publisher, state: AppStateOf
) -> shapes.RunState:
    """Put a student on the Hub, with the token of the service's environment."""
    place = students.folder_of(state, name, student)
    arguments = cli_arguments("student push", str(place.absolute()), repo=wanted.repo, private=wanted.private)
    state.put(state.run(name), "push", arguments, caller.name)
    return state.run_state(name)


@router.get("/evaluations/choices", tags=["evaluations"])
def evaluation_choices(caller: Reader, state: AppStateOf) -> model_shapes.EvaluationChoices:
    """Suites, tasks, protocols, guards, and the rows of the study's tables."""
    return evaluations.choices(state)


@router.get("/evaluations/compare", tags=["evaluations"])
def compare(
    caller: Reader,
    state: AppStateOf,
    first: Annotated[str, Query(max_length=400, description="NAME/EVALUATION/MODEL")],
    second: Annotated[str, Query(max_length=400, description="the same of the other")],
) -> list[model_shapes.ComparisonState]:
    """Two models of any evaluations, task by task: an exact McNemar test, paired by question."""
    return compared(state, first, second)


def compared(state: AppState, first: str, second: str) -> list[model_shapes.ComparisonState]:
    """The comparison of two texts NAME/EVALUATION/MODEL."""
    sides = []
    for text in (first, second):
        name, _, rest = text.partition("/")
        evaluation, _, model = rest.partition("/")
        sides.append((evaluations.folder_of(state, name, evaluation), model))
    return evaluation_results.compare(sides[0], sides[1])


@router.get("/evaluations", tags=["evaluations"])
def list_evaluations(caller: Reader, state: AppStateOf) -> list[model_shapes.EvaluationState]:
    """Every evaluation, the newest results first; without rates, which each has by itself."""
    return [evaluations.state_of(state, name, own, brief=True) for name, own, _ in evaluations.folders(state)]


@router.post("/evaluations/plan", tags=["evaluations"])
async def plan_evaluation(
    wanted: model_shapes.EvaluationWanted, caller: Runner, state: AppStateOf, request: Request
) -> model_shapes.EvaluationPlanState:
    """What an evaluation would ask and cost. Builds its tasks; asks nobody."""
    _, words = await asyncio.to_thread(evaluations.arguments, state, wanted)
    found = await json_of(state, state.asking, request, (*words, "--plan", "--json"))
    return model_shapes.EvaluationPlanState.model_validate(found)


@router.post("/evaluations", status_code=202, tags=["evaluations"])
def evaluate(wanted: model_shapes.EvaluationWanted, caller: Runner, state: AppStateOf) -> model_shapes.EvaluationState:
    """Measure a run's student before and after its training, another student, or a teacher."""
    name, _ = evaluations.start(state, wanted, caller)
    return evaluations.state_of(state, name, wanted.name)


@router.get("/evaluations/{name}/{evaluation}", tags=["evaluations"])
def evaluation_state(name: str, evaluation: str, caller: Reader, state: AppStateOf) -> model_shapes.EvaluationState:
    """An evaluation with its rates and their 95 % intervals: so far while it runs, then of its results."""
    return evaluations.state_of(state, name, evaluation)


@router.post("/evaluations/{name}/cancel", status_code=202, tags=["evaluations"])
def cancel_evaluation(name: str, caller: Runner, state: AppStateOf) -> None:
    """Stop the evaluation that is under way there; what was answered is kept."""
    evaluations.cancel(state, name)


@router.post("/evaluations/{name}/again", status_code=202, tags=["evaluations"])
def go_on_evaluating(name: str, caller: Runner, state: AppStateOf) -> None:
    """Go on with the last evaluation there: it asks for what is missing."""
    evaluations.again(state, name, caller)


@router.get("/evaluations/{name}/{evaluation}/answers", tags=["evaluations"])
def answers(
    name: str,
    evaluation: str,
    caller: Reader,
    state: AppStateOf,
    task: Named = "",
    model: Named = "",
    outcome: Named = "",
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> model_shapes.AnswersPage:
    """Answers with their verdicts, the mildest first."""
    place = evaluations.folder_of(state, name, evaluation)
    return evaluation_results.answers(place, task, model, outcome, offset, limit)


@router.get("/evaluations/{name}/{evaluation}/report", tags=["evaluations"], response_class=FileResponse)
def evaluation_report(name: str, evaluation: str, caller: Reader, state: AppStateOf) -> Response:
    """The evaluation's report as a page of its own: the study's table, paired tests, answers."""
    place = evaluations.folder_of(state, name, evaluation)
    results, page = plain(place / "results.json"), plain(place / "report" / "report.html")
    if not results.is_file():
        raise Problem(409, f"{name}/{evaluation} has no results yet, and no report.")
    with state.reporting:
        make_report(page, results, state.runs, "eval", str(place))
    return sandboxed(page)


@router.get("/studies", tags=["studies"])
def list_studies(caller: Reader, state: AppStateOf) -> list[model_shapes.StudyState]:
    """The studies that come with the project."""
    return studies.listed(state)


@router.get("/studies/{name}", tags=["studies"])
async def study(name: str, caller: Reader, state: AppStateOf, request: Request) -> list[model_shapes.StudyStep]:
    """Every step of a study: how it is, and what it waits for."""
    return studies.steps_of(await json_of(state, state.looking, request, studies.words_of(name)))
