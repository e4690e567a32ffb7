"""The page: what a browser sees of the service, drawn here and kept fresh by htmx.

GET / runs, /ui/new a form, /ui/runs/RUN one of them with /live, /rows, /rows/PROMPT, /history/RESPONSE, /report;
/ui/teachers, /docs, /login. Forms go to POST paths beside them and need the session's key; every one works without a
script as well.
"""

import re
from secrets import compare_digest
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from pipelines.errors import UserError
from pipelines.judges.spans import marked
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder
from service import api, problems, starting, teachers
from service.access import (
    AppStateOf,
    check_role,
    cookie_name,
    form_of,
    session_of,
    set_cookie,
)
from service.app_state import AppState
from service.description import description_of
from service.forms import Form, again_in, budget_in, new_run_in, publish_in
from service.problems import Problem, problem_of
from service.rendering import render
from service.rows import filter_of
from service.run_reader import spoken
from service.tokens import Caller, Unknown

PER_PAGE = 25
_NUMBER = re.compile(r"[0-9]{1,18}")
router = APIRouter(include_in_schema=False)


def viewer(request: Request) -> Caller:
    """Whose page it is; whoever has no session is sent to log in.

    Raises:
        Problem: 401.
    """
    try:
        return session_of(request)
    except Unknown as error:
        raise Problem(401, str(error)) from error


Viewer = Annotated[Caller, Depends(viewer)]


async def posted(request: Request, caller: Viewer) -> Form:
    """A form of this session.

    Raises:
        Problem: 400 or 403, it is none.
    """
    form = Form(await form_of(request))
    if not compare_digest(form.text("key").encode(), caller.form_key.encode()):
        raise Problem(403, "This form belongs to another session. Load the page again.")
    return form


Posted = Annotated[Form, Depends(posted)]


def _page(template: str, caller: Caller, status: int = 200, /, **values: Any) -> Response:
    return HTMLResponse(render(template, caller=caller, key=caller.form_key, **values), status)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303)


async def answer_with_problem(request: Request, error: Exception) -> Response:
    """An error as the page shows it, or as a problem document where a program asked."""
    path = request.url.path
    if not (path in ("/", "/docs", "/login", "/logout") or path.startswith("/ui/")):
        return await problems.answer_with_problem(request, error)
    found = problem_of(error)
    part = request.headers.get("hx-request") == "true"
    if found.status == 401 and not part:
        return _to("/login")
    title = problems.title_of(found.status)
    try:
        caller: Caller | None = session_of(request)
    except Unknown:
        caller = None
    name = "problem_part" if part else "problem"
    page = render(name, title=title, detail=found.detail, caller=caller, key=caller.form_key if caller else "")
    # htmx shows what comes with 200 only.
    return HTMLResponse(page, 200 if part else found.status, headers=found.headers)


@router.get("/login")
def login(request: Request, state: AppStateOf, code: str | None = None) -> Response:
    """The form for a token; a one-time link logs in at once."""
    if code is None:
        return HTMLResponse(render("login", caller=None, key="", message=""))
    try:
        secret = state.tokens.use_code(code)
    except Unknown as error:
        request.app.state.refusals.count(request)
        return HTMLResponse(render("login", caller=None, key="", message=str(error)), 401)
    return _logged_in(state, secret)


@router.post("/login")
async def log_in(request: Request, state: AppStateOf) -> Response:
    """A session for a token."""
    form = Form(await form_of(request))
    try:
        secret = state.tokens.log_in(form.text("token").strip())
    except Unknown as error:
        request.app.state.refusals.count(request)
        return HTMLResponse(render("login", caller=None, key="", message=str(error)), 401)
    return _logged_in(state, secret)


def _logged_in(state: AppState, secret: str) -> Response:
    # A page of ours in between: with SameSite=Strict a browser that comes by a link from elsewhere, a terminal or a
    # mail, would not send the cookie along with a redirect.
    return HTMLResponse(render("welcome", caller=None, key=""), headers={"set-cookie": set_cookie(state, secret)})


@router.post("/logout")
async def log_out(request: Request, state: AppStateOf, form: Posted) -> Response:
    """End the session."""
    state.tokens.log_out(request.cookies[cookie_name(state)])
    return RedirectResponse("/login", 303, headers={"set-cookie": set_cookie(state, "")})


@router.get("/")
def list_runs(caller: Viewer, state: AppStateOf) -> Response:
    """All runs."""
    return _page("runs", caller, **_runs(state))


@router.get("/ui/list")
def runs_part(caller: Viewer, state: AppStateOf, seen: str = "") -> Response:
    """The list again, where it has changed."""
    found = _runs(state)
    return Response(status_code=204) if seen == found["mark"] else _page("runs_part", caller, **found)


def _runs(state: AppState) -> dict[str, Any]:
    import hashlib

    states = state.run_states()
    text = "".join(run.model_dump_json() for run in states)
    return {"runs": states, "mark": hashlib.sha256(text.encode()).hexdigest()[:16]}


@router.get("/ui/runs/{name}")
def show_run(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """One run: its state and its actions."""
    return _page("run", caller, tab="run", **_run(state, name))


@router.get("/ui/runs/{name}/live")
def run_part(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """The part of a run's page that moves."""
    return _page("run_part", caller, **_run(state, name))


@router.get("/ui/runs/{name}/spoken")
def run_spoken(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """A run's state as a screen reader announces it."""
    return _page("spoken", caller, spoken=spoken(state.run_state(name)))


@router.get("/ui/runs/{name}/actions")
def run_actions(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """What can be done with a run now."""
    return _page("actions", caller, **_run(state, name))


def _run(state: AppState, name: str) -> dict[str, Any]:
    run = state.run_state(name)
    return {
        "run": run,
        "spoken": spoken(run),
        "has_rows": RunFolder(state.runs / name).table_path("responses").exists(),
        "teachers": list(state.known_teachers()),
        "argilla": _argilla(state),
    }


def _argilla(state: AppState) -> str | None:
    try:
        return api.check_review(state)
    except Problem:
        return None


@router.post("/ui/runs/{name}/{action}")
def act(name: str, action: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """A button of a run's page: checks the role, then does what the API does."""
    # What is repeated asks for the role of its kind as well.
    check_role(caller, "publish" if action == "publish" else "run")
    if action == "cancel":
        api.cancel(name, caller, state)
    elif action == "resume":
        api.resume(name, caller, state, budget_in(form))
    elif action == "release":
        api.release(name, caller, state)
    elif action == "review":
        api.review(name, caller, state)
    elif action == "publish":
        api.publish(name, publish_in(form), caller, state)
    elif action == "repeat":
        number = form.text("job")
        api.repeat(name, int(number) if _NUMBER.fullmatch(number) else 0, caller, state)
    elif action == "regenerate":
        wanted = again_in(form, name)
        starting.again(state, wanted, caller)
        name = wanted.name
    else:
        raise Problem(404, f"There is no button '{action}'.")
    return _to(f"/ui/runs/{quote(name)}")


@router.get("/ui/new")
def new_run(caller: Viewer, state: AppStateOf) -> Response:
    """The form of a new run."""
    return _page("new", caller, **_choices(state), form=Form({}), message="")


@router.post("/ui/new")
def start_run(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Start a run, or show the form again with what does not fit."""
    check_role(caller, "run")
    try:
        wanted = new_run_in(form)
        starting.start(state, wanted, caller)
    except (UserError, Problem) as error:
        return _page("new", caller, 422, **_choices(state), form=form, message=str(error))
    return _to(f"/ui/runs/{quote(wanted.name)}")


@router.post("/ui/estimate")
def estimate(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """What the run of a form would take."""
    try:
        config = new_run_in(form, named=False).config
        found, warnings = starting.estimate(state, config), starting.warnings(state, config)
    except UserError as error:
        return _page("estimate", caller, message=str(error), wrong=True, warnings=[])
    return _page("estimate", caller, message=found.message(), wrong=False, warnings=warnings)


def _choices(state: AppState) -> dict[str, Any]:
    from pipelines.prompts.variant import load_variants
    from pipelines.settings.config import RunConfig
    from pipelines.settings.judge import load_judges

    return {
        "sets": list(state.prompt_sets()),
        "variants": {name: entry.description for name, entry in load_variants().items()},
        "teachers": teachers.listed(state),
        "judges": {name: starting.LOOKS_FOR[entry.kind] for name, entry in load_judges().items()},
        "default": RunConfig(),
    }


@router.get("/ui/runs/{name}/rows")
def list_rows(
    name: str, caller: Viewer, state: AppStateOf, request: Request, offset: Annotated[int, Query(ge=0, le=10**9)] = 0
) -> Response:
    """A run's rows, filtered by the form above them."""
    if not state.run(name).table_path("responses").exists():
        return _page("no_rows", caller, tab="rows", name=name, state=state.run_state(name))
    index = state.rows.of(api.has_rows(state, name))
    asked = {key: request.query_params.get(key, "") for key in ("config", "outcome", "flag", "where")}
    filters, wrong = [], ""
    texts = [f"{key}:eq:{asked[key]}" for key in ("config", "outcome") if asked[key]]
    if flag := asked["flag"]:
        texts.append(
            "patterns:ge:1" if flag == "any" else "safety:eq:unsafe" if flag == "unsafe" else f"{flag}:eq:true"
        )
    texts += asked["where"].split()
    try:
        filters = [filter_of(text) for text in texts[: api.MOST_FILTERS]]
    except UserError as error:
        wrong = str(error)
    page = index.page(filters, offset, PER_PAGE, texts=False)
    part = request.headers.get("hx-target") == "rows"
    return _page(
        "rows_part" if part else "rows",
        caller,
        tab="rows",
        name=name,
        page=page,
        offset=offset,
        per_page=PER_PAGE,
        asked=asked,
        query=urlencode({key: value for key, value in asked.items() if value}),
        wrong=wrong,
        configs=index.choices("config"),
        patterns=PATTERNS,
    )


@router.get("/ui/runs/{name}/rows/{prompt_id}")
def show_prompt(name: str, prompt_id: str, caller: Viewer, state: AppStateOf, at: str = "") -> Response:
    """Every response to one prompt, side by side."""
    index = state.rows.of(api.has_rows(state, name))
    found = index.of_prompt(prompt_id)
    if not found:
        raise Problem(404, f"{name} has no responses to a prompt '{prompt_id[:64]}'.")
    for row in found:
        judgements = index.judgements(row["response_id"])
        quoted = [(label, span) for item in judgements for label, span in item["evidence"].items()]
        row["judgements"] = judgements
        row["marked_reasoning"] = marked(row["reasoning"], quoted)
        row["marked_answer"] = marked(row["answer"], quoted)
        row["flags"] = [label for label in PATTERNS if row[label]]
        row["quoted"] = quoted
    return _page("prompt", caller, tab="rows", name=name, rows=found, at=at)


@router.get("/ui/runs/{name}/history/{response_id}")
def history(name: str, response_id: str, caller: Viewer, state: AppStateOf) -> Response:
    """The history of one row."""
    from curation.row_history import row_history

    parts = row_history(api.has_rows(state, name), response_id).parts
    return _page("history", caller, tab="rows", name=name, parts=parts, response_id=response_id)


@router.get("/ui/runs/{name}/report")
def report(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """The run's report, framed."""
    state.run(name)
    return _page("report", caller, tab="report", name=name)


@router.get("/ui/runs/{name}/log")
def log(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """What the run's jobs printed."""
    from service.jobs import log_tail

    return _page("log", caller, tab="log", name=name, text=log_tail(state.run(name).path))


@router.get("/ui/teachers")
def list_teachers(caller: Viewer, state: AppStateOf) -> Response:
    """Who may answer."""
    return _page("teachers", caller, teachers=teachers.listed(state))


@router.post("/ui/teachers/{name}/test")
def test_teacher(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Ask a teacher a question, and show the list again."""
    check_role(caller, "run")
    teachers.test(state, name)
    return _to("/ui/teachers")


@router.get("/docs")
def docs(caller: Viewer, request: Request) -> Response:
    """The API in words, from its own description."""
    return _page("docs", caller, api=description_of(request.app))
