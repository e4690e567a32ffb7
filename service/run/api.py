"""The HTTP API: runs, their work and their rows. GET /openapi.json describes it, GET /docs shows it.

Functions without `async` run in threads, since what they do reads files.
"""

import os
import re
import tempfile
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response, StreamingResponse

from pipelines.errors import UserError, one_line
from pipelines.runs import RUN_NAME, VERSION, RunFolder
from service.app_state import AppState
from service.http import shapes
from service.http.access import AppStateOf, check_role, needs
from service.http.downloads import plain, zipped
from service.http.problems import MEDIA_TYPE, Problem, ProblemDocument, title_of
from service.http.tokens import Caller
from service.jobs import commands
from service.jobs.jobs import cli_arguments, log_tail
from service.rows.exports import FORMATS, exported
from service.rows.reading import Query as RowQuery
from service.rows.reading import query_from
from service.rows.words import LONGEST
from service.run import run_keeping, starting, teachers

MOST_FILTERS = 20
# Rows that a request picks by their ids.
MOST_PICKED = 500
_FRAMED = (
    "sandbox allow-same-origin allow-top-navigation-by-user-activation; default-src 'none'; "
    "style-src 'unsafe-inline'; frame-ancestors 'self'"
)
VERSION_NUMBER = re.compile(shapes.VERSION_PATTERN)
_ARCHIVE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
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
    starting.again(state, wanted, starting.release_of(state.run(wanted.release)), caller)
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
def list_runs(
    caller: Reader,
    state: AppStateOf,
    response: Response,
    q: Annotated[str, Query(max_length=64, description="a part of the name")] = "",
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[shapes.RunState]:
    """Runs by page, the newest first; the header `x-total-count` has how many there are."""
    total, found = state.run_states(q, offset, limit)
    response.headers["x-total-count"] = str(total)
    return found


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
    """Send a sample of rows, or those of some ids, to Argilla for people's votes; a server of it must be running."""
    check_review(state)
    wanted = wanted or shapes.ReviewWanted()
    run = state.run(name)
    given = wanted.model_dump()
    given["ids"] = None if wanted.ids is None else state.store.keep_list(run.name, wanted.ids)
    state.put(run, "review", cli_arguments("review push", name, **given), caller.name)
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
        raise Problem(404, f"{name} has no job beside its own work of the number {number}.")
    if job.action in ("publish", "push"):
        check_role(caller, "publish")
    state.put(run, job.action, job.arguments, caller.name)
    return state.run_state(name)


def rows_query(
    where: Annotated[
        list[Annotated[str, Query(max_length=500)]],
        Query(max_length=MOST_FILTERS, description="column:op:value, such as variant:eq:improved; all must fit"),
    ] = [],  # noqa: B006 - FastAPI copies it
    q: Annotated[str, Query(max_length=LONGEST, description='words, "several words", begin*; all must be found')] = "",
    within: Annotated[str, Query(max_length=20, description="where: prompt, reasoning or answer")] = "",
    sort: Annotated[
        str, Query(max_length=80, description="a figure; - before it for the largest first, such as -worst")
    ] = "",
) -> RowQuery:
    """Which rows, in which order; mild ones first, then by their ids, where no figure is named."""
    return query_from(where, q, within, sort)


AskedRows = Annotated[RowQuery, Depends(rows_query)]


@router.get("/runs/{name}/rows", tags=["rows"])
def rows(
    name: str,
    caller: Reader,
    state: AppStateOf,
    query: AskedRows,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    texts: Annotated[bool, Query(description="whole prompt, reasoning and answer, not only how they begin")] = False,
) -> shapes.RowsPage:
    """Rows of a run by page, searched, filtered by column, sorted by a figure."""
    page = state.rows.of(has_rows(state, name)).page(query, offset, limit, texts)
    return shapes.RowsPage(total=page.total, offset=offset, rows=page.rows)


@router.get("/runs/{name}/rows/export", tags=["rows"], response_class=StreamingResponse)
def export_rows(
    name: str,
    caller: Reader,
    state: AppStateOf,
    query: AskedRows,
    format: Annotated[str, Query(pattern="^(jsonl|parquet)$")] = "jsonl",
    id: Annotated[list[Annotated[str, Query(max_length=64)]], Query(max_length=MOST_PICKED)] = [],  # noqa: B006
) -> Response:
    """The same rows, all of them, as a file with their whole texts; only those of the given ids where there are any."""
    index = state.rows.of(has_rows(state, name))
    numbers = index.numbers_of(id) if id else index.listing(query)
    return StreamingResponse(
        exported(index, numbers, format),
        media_type=FORMATS[format],
        headers={"content-disposition": f'attachment; filename="{name}-rows.{format}"'},
    )


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


@router.get("/runs/{name}/contents", tags=["runs"])
def contents(name: str, caller: Reader, state: AppStateOf) -> list[shapes.Content]:
    """What a run's folder holds, the largest first: what a deletion takes."""
    return [shapes.Content(name=one.name, size=one.size) for one in run_keeping.contents(state, name)]


@router.post("/runs/{name}/rename", tags=["runs"])
def rename(name: str, wanted: shapes.Renaming, caller: Runner, state: AppStateOf) -> shapes.RunState:
    """Give a run another name; its release keeps the one that it was built under."""
    run_keeping.rename(state, name, wanted.name)
    return state.run_state(wanted.name)


@router.post("/runs/{name}/delete", tags=["runs"], status_code=204)
def delete(name: str, wanted: shapes.Deletion, caller: Publisher, state: AppStateOf) -> None:
    """Delete a run with all that it holds; `confirm` is its name once more. Needs the role publish."""
    run_keeping.remove(state, name, wanted.confirm)


@router.get("/runs/{name}/run.zip", tags=["runs"], response_class=StreamingResponse)
def export(name: str, caller: Reader, state: AppStateOf) -> Response:
    """The run as one file, for another machine: settings, answers, tables and release, no models."""
    return StreamingResponse(
        run_keeping.export(state, name),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{name}.run.zip"'},
    )


@router.post(
    "/runs/import",
    tags=["runs"],
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": _ARCHIVE}},
)
async def import_run(
    request: Request,
    caller: Runner,
    state: AppStateOf,
    name: Annotated[str, Query(pattern=f"^({RUN_NAME.pattern})?$", description="the archive's if not given")] = "",
) -> shapes.RunState:
    """Make a run of an archive of `GET /runs/{name}/run.zip`; one that is no run's is refused whole."""
    return await taken_in(request, state, name)


async def taken_in(request: Request, state: AppState, name: str) -> shapes.RunState:
    """The run that a request's body is an archive of."""
    with tempfile.TemporaryFile() as archive:
        async for piece in request.stream():
            archive.write(piece)
        made = await run_in_threadpool(run_keeping.take_in, state, archive, name)
    return await run_in_threadpool(state.run_state, made)


@router.get("/runs/{name}/report", tags=["runs"], response_class=FileResponse)
def report(
    name: str,
    caller: Reader,
    state: AppStateOf,
    format: str = Query("html", pattern="^(html|json)$"),
    framed: Annotated[bool, Query(description="with links to the page's rows, and without its script")] = False,
) -> Response:
    """The run's report as a page of its own, or every figure as JSON; made where it is missing or out of date."""
    from curation.report.page import ROWS_LINK

    run = state.run(name)
    page = plain(run.path / "report.html")
    with state.reporting:
        make_report(page, run.path / "manifest.json", run.path.parent, run.name)
    if format == "json":
        return FileResponse(plain(run.path / "report.json"), media_type="application/json")
    if framed:
        # Of this origin, so that what its links ask for comes with the session; and therefore without any script.
        text = page.read_text(encoding="utf-8").replace(ROWS_LINK, f'target="_top" href="/ui/runs/{name}/rows?')
        return HTMLResponse(text, headers={"content-security-policy": _FRAMED})
    return sandboxed(page)


def sandboxed(page: FilePath) -> Response:
    """A report as it is framed, of an opaque origin: its scripts reach neither the session nor the service."""
    from curation.report.page import POLICY

    policy = f"sandbox allow-scripts; {POLICY}; frame-ancestors 'self'"
    return FileResponse(page, media_type="text/html", headers={"content-security-policy": policy})


def make_report(page: FilePath, source: FilePath, runs: FilePath, *words: str) -> None:
    """Make a report's page that is missing or older than its source. In a process of its own: drawing takes memory that
    this one would not give back."""
    changed = source.stat().st_mtime_ns
    if page.exists() and page.stat().st_mtime_ns >= changed:
        return
    try:
        commands.run(runs, "report", *words)
    except UserError as error:
        raise UserError(f"The report cannot be made: {error}") from error
    # As old as what it was made of, which may have changed while it was drawn.
    os.utime(page, ns=(changed, changed))


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
