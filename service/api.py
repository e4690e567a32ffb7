"""The HTTP API: runs, their work and their rows. GET /openapi.json describes it, GET /docs shows it.

Functions without `async` run in threads, since what they do reads files.
"""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response, StreamingResponse

from pipelines.errors import UserError, one_line
from pipelines.runs import VERSION, RunFolder
from service import children, shapes, starting, teachers
from service.access import AppStateOf, check_role, needs
from service.app_state import AppState
from service.downloads import plain, zipped
from service.jobs import cli_arguments, log_tail
from service.problems import MEDIA_TYPE, Problem, ProblemDocument, title_of
from service.rows import filter_of
from service.tokens import Caller

MOST_FILTERS = 20
_FRAMED = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
VERSION_NUMBER = re.compile(shapes.VERSION_PATTERN)
Reader: Any = Annotated[Caller, needs("read")]
Runner: Any = Annotated[Caller, needs("run")]
Publisher: Any = Annotated[Caller, needs("publish")]

open_router = APIRouter(tags=["service"])
router = APIRouter(
    responses={
        code: {"model": ProblemDocument, "description": title_of(code), "content": {MEDIA_TYPE: {}}}
        for code in (400, 401, 403, 404, 409, 413, 421, 422, 429, 503)
    }
)


@open_router.get("/health")
async def health() -> shapes.Health:
    """Health check; needs no token and reveals nothing else."""
    return shapes.Health(status="ok", version=VERSION)


@router.post("/runs", status_code=202, tags=["runs"])
def start_run(wanted: shapes.NewRun, caller: Runner, state: AppStateOf) -> shapes.RunState:
    """Start a run: its prompts are drawn at once, the rest waits for its turn."""
    starting.start(state, wanted, caller)
    return state.run_state(wanted.name)


@router.post("/regenerate", status_code=202, tags=["runs"])
def regenerate(wanted: shapes.Again, caller: Runner, state: AppStateOf) -> shapes.RunState:
    """Start a run with the prompts, variants, judges and settings behind a release, and another teacher."""
    starting.again(state, wanted, caller)
    return state.run_state(wanted.name)


@router.post("/estimate", tags=["runs"])
def estimate(wanted: shapes.Wanted, caller: Reader, state: AppStateOf) -> shapes.EstimateState:
    """What a run like this would ask and take, by the answers of earlier runs here."""
    found = starting.estimate(state, wanted)
    return shapes.EstimateState(
        requests=found.missing,
        tokens=found.tokens,
        cost=found.cost,
        message=found.message(),
        warnings=starting.warnings(state, wanted),
    )


@router.get("/runs", tags=["runs"])
def list_runs(caller: Reader, state: AppStateOf) -> list[shapes.RunState]:
    """Every run, the newest first."""
    return state.run_states()


@router.get("/runs/{name}", tags=["runs"])
def show_run(name: str, caller: Reader, state: AppStateOf) -> shapes.RunState:
    """A run's state: stage, counts, rate, cost, time left, failures."""
    return state.run_state(name)


@router.get("/runs/{name}/events", tags=["runs"], response_class=StreamingResponse)
def run_events(name: str, caller: Reader, state: AppStateOf) -> Response:
    """The same as server-sent events, for as long as the connection is held: `state` with every change."""
    first = state.run_state(name)
    state.broadcaster.check_room()
    return StreamingResponse(state.broadcaster.events(name, first), media_type="text/event-stream")


@router.post("/runs/{name}/cancel", status_code=202, tags=["runs"])
def cancel(name: str, caller: Runner, state: AppStateOf) -> shapes.RunState:
    """Stop a run's job as Ctrl-C does; finished requests are kept."""
    run = state.run(name)
    job = state.queue.latest(run.name)
    if job is None or not job.open:
        raise Problem(409, f"{name} has no job that could be cancelled.")
    state.queue.cancel(job)
    state.supervisor.wake()
    return state.run_state(name)


@router.post("/runs/{name}/resume", status_code=202, tags=["runs"])
def resume(name: str, caller: Runner, state: AppStateOf, budget: shapes.Budget | None = None) -> shapes.RunState:
    """Go on where a run was stopped, with another budget where one is given. Asks for nothing twice."""
    starting.go_on(state, state.run(name), "resume", budget or shapes.Budget(), caller)
    return state.run_state(name)


@router.post("/runs/{name}/release", status_code=202, tags=["runs"])
def release(
    name: str, caller: Runner, state: AppStateOf, wanted: shapes.ReleaseWanted | None = None
) -> shapes.RunState:
    """Rebuild the run's release."""
    run = state.run(name)
    version = wanted.version if wanted else None
    state.put(run, "release", cli_arguments("release build", name, version=version), caller.name)
    return state.run_state(name)


@router.post("/runs/{name}/review", status_code=202, tags=["runs"])
def review(name: str, caller: Runner, state: AppStateOf, wanted: shapes.ReviewWanted | None = None) -> shapes.RunState:
    """Send a sample of rows to Argilla for people's votes; an Argilla server must be running."""
    check_review(state)
    wanted = wanted or shapes.ReviewWanted()
    run = state.run(name)
    state.put(run, "review", cli_arguments("review push", name, rows=wanted.rows, assist=wanted.assist), caller.name)
    return state.run_state(name)


def check_review(state: AppState) -> str:
    """The address of the Argilla server.

    Raises:
        Problem: 409, there is none.
    """
    from curation.review.home import address

    try:
        return address(state.runs)[0]
    except UserError as error:
        raise Problem(409, str(error)) from error


@router.post("/runs/{name}/publish", status_code=202, tags=["runs"])
def publish(name: str, wanted: shapes.PublishWanted, caller: Publisher, state: AppStateOf) -> shapes.RunState:
    """Put the run's release on the Hub, with the token of the service's environment."""
    run = state.run(name)
    starting.release_of(run)
    arguments = cli_arguments(
        "publish",
        name,
        repo=wanted.repo,
        private=wanted.private,
        gated=wanted.gated,
        dry_run=wanted.dry_run,
    )
    state.put(run, "publish", arguments, caller.name)
    return state.run_state(name)


@router.post("/runs/{name}/jobs/{number}/repeat", status_code=202, tags=["runs"])
def repeat(
    name: str, number: Annotated[int, Path(ge=0, lt=2**63)], caller: Runner, state: AppStateOf
) -> shapes.RunState:
    """Do a release, a review or a publication that is over once more, with what it was asked with."""
    run = state.run(name)
    job = state.queue.job(run.name, number)
    if job is None or not job.side:
        raise Problem(404, f"{name} has no release, review or publication of the number {number}.")
    if job.action == "publish":
        check_role(caller, "publish")
    state.put(run, job.action, job.arguments, caller.name)
    return state.run_state(name)


@router.get("/runs/{name}/rows", tags=["rows"])
def rows(
    name: str,
    caller: Reader,
    state: AppStateOf,
    where: Annotated[
        list[Annotated[str, Query(max_length=500)]],
        Query(max_length=MOST_FILTERS, description="column:op:value, such as variant:eq:improved; all must fit"),
    ] = [],  # noqa: B006 - FastAPI copies it
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    texts: Annotated[bool, Query(description="whole prompt, reasoning and answer, not only how they begin")] = False,
) -> shapes.RowsPage:
    """Rows of a run by page, mild ones first, then by their ids, filtered by column."""
    run = has_rows(state, name)
    page = state.rows.of(run).page([filter_of(text) for text in where], offset, limit, texts)
    return shapes.RowsPage(total=page.total, offset=offset, rows=page.rows)


def has_rows(state: AppState, name: str) -> RunFolder:
    """A run that has responses.

    Raises:
        Problem: 404, no such run; 409, nothing was generated yet.
    """
    run = state.run(name)
    try:
        run.require("responses")
    except UserError as error:
        raise Problem(409, str(error)) from error
    return run


@router.get("/runs/{name}/report", tags=["runs"], response_class=FileResponse)
def report(
    name: str,
    caller: Reader,
    state: AppStateOf,
    format: str = Query("html", pattern="^(html|json)$"),
    framed: Annotated[bool, Query(description="with links to the page's rows, and without its script")] = False,
    of: Annotated[str, Query(pattern="^(run|evaluation)$", description="`report eval` makes the second")] = "run",
) -> Response:
    """The run's report as a page of its own, or every figure as JSON; made where it is missing or out of date."""
    from curation.report.page import POLICY, ROWS_LINK

    run = state.run(name)
    if of == "evaluation":
        made = plain(run.path / "eval" / "report" / f"report.{format}")
        if not made.is_file():
            raise Problem(
                409, f"{name} has no report of an evaluation. Make it: saferthoughts report eval RUNS/{name}/eval"
            )
        return FileResponse(made, headers={"content-security-policy": f"sandbox; {_FRAMED}"})
    page = plain(run.path / "report.html")
    with state.reporting:
        if not page.exists() or page.stat().st_mtime < (run.path / "manifest.json").stat().st_mtime:
            _make_report(run)
    if format == "json":
        return FileResponse(plain(run.path / "report.json"), media_type="application/json")
    if framed:
        # Of this origin, so that what its links ask for comes with the session; and therefore without any script.
        text = page.read_text(encoding="utf-8").replace(ROWS_LINK, f'target="_top" href="/ui/runs/{name}/rows?')
        policy = f"sandbox allow-same-origin allow-top-navigation-by-user-activation; {_FRAMED}"
        return HTMLResponse(text, headers={"content-security-policy": policy})
    # Sandboxed, so an opaque origin: scripts in the report reach neither the session nor the service.
    policy = f"sandbox allow-scripts; {POLICY}; frame-ancestors 'self'"
    return FileResponse(page, media_type="text/html", headers={"content-security-policy": policy})


def _make_report(run: RunFolder) -> None:
    """In a process of its own: drawing takes memory that this one would not give back."""
    try:
        children.run(run.path.parent, "report", run.name)
    except UserError as error:
        raise UserError(f"The report cannot be made: {error}") from error


@router.get("/runs/{name}/log", tags=["runs"], response_class=PlainTextResponse)
def log(name: str, caller: Reader, state: AppStateOf) -> Response:
    """The end of what the run's jobs printed."""
    return PlainTextResponse(log_tail(state.run(name).path))


@router.get("/runs/{name}/release.zip", tags=["runs"], response_class=StreamingResponse)
def release_zip(name: str, caller: Reader, state: AppStateOf) -> Response:
    """The release as one file."""
    run = state.run(name)
    folder = starting.release_of(run)
    version = state.run_state(name).version or ""
    if VERSION_NUMBER.fullmatch(version) is None:
        raise Problem(409, f"The release of {name} names no version such as 1.0.0, but '{one_line(version, 80)}'.")
    file = f"{name}-{version}"
    return StreamingResponse(
        zipped(folder, file),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{file}.zip"'},
    )


@router.get("/teachers", tags=["teachers"])
def list_teachers(caller: Reader, state: AppStateOf) -> list[shapes.TeacherState]:
    """Teachers by name. Addresses and keys are not revealed."""
    return teachers.listed(state)


@router.post("/teachers/{name}/test", tags=["teachers"])
def test_teacher(name: str, caller: Runner, state: AppStateOf) -> shapes.TeacherState:
    """Ask a teacher one mild question and store the result."""
    return teachers.test(state, name)
