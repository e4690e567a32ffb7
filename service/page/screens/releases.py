"""Releases: /ui/releases, a run's at /ui/runs/RUN/release, those of others at /ui/releases/pulled/NAME, /ui/compare."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from pipelines.errors import UserError
from pipelines.settings.parts import validated
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.downloads import plain
from service.http.problems import Problem
from service.http.shapes import ReleaseWanted
from service.jobs.jobs import cli_arguments, printed_by
from service.page.forms import Form, pulled_again_in
from service.page.screens.shared import Place, Posted, Viewer, page, to
from service.releases import api_releases, releases
from service.releases.card_text import PICTURE, card_of, front_of
from service.run import starting

PER_PAGE = 25
# Runs that a student of a pulled release can be kept with, in a list: the newest.
_MOST_RUNS = 50

router = APIRouter(include_in_schema=False)
PLACE = Place(40, "Releases", "/ui/releases")


@router.get("/ui/releases")
def list_releases(caller: Viewer, state: AppStateOf, offset: Annotated[int, Query(ge=0, le=10**9)] = 0) -> Response:
    """Releases of the runs by page, and those of others that were pulled."""
    return _list(state, caller, offset)


def _list(state: AppState, caller: Viewer, offset: int = 0, form: Form | None = None, message: str = "") -> Response:
    own = releases.own(state.runs)
    return page(
        "releases",
        caller,
        422 if message else 200,
        own=[releases.listed(folder) for folder in own[offset : offset + PER_PAGE]],
        total=len(own),
        offset=offset,
        per_page=PER_PAGE,
        pulled=[_of_others(state, name) for name in releases.pulled(state.runs)],
        form=form or Form({}),
        message=message,
    )


def _of_others(state: AppState, name: str) -> dict[str, Any]:
    folder = releases.pulled_folder(state.runs, name)
    return {"name": name, "listed": releases.listed(folder), "job": state.queue.latest(releases.run_of(name))}


@router.post("/ui/releases/pull")
def pull(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Pull a release of somebody else, as a job."""
    check_role(caller, "run")
    try:
        name = releases.pull(state, form.text("repo"), form.text("version"), caller)
    except UserError as error:
        return _list(state, caller, form=form, message=str(error))
    return to(f"/ui/releases/pulled/{quote(name)}")


@router.get("/ui/releases/pulled/{name}")
def show_pulled(name: str, caller: Viewer, state: AppStateOf, seen: str = "") -> Response:
    """A release of somebody else: where its pull stands, then what it is."""
    values = _pulled(state, name)
    if seen and seen == values["mark"]:
        return Response(status_code=204)
    shown = page("pulled", caller, **values, form=Form({}), preview="", agreed="", message="")
    # The part that waits takes in nothing of it: the page is loaded anew.
    if seen:
        shown.headers["hx-refresh"] = "true"
    return shown


def _pulled(state: AppState, name: str) -> dict[str, Any]:
    folder, job = releases.here(state, name), state.queue.latest(releases.run_of(name))
    found = releases.listed(folder)
    here = not found.problem
    return {
        "name": name,
        "address": releases.address_of(name),
        "job": job,
        "listed": found,
        "here": here,
        "mark": f"{job.id}-{job.state}-{job.attempts}" if job else "0",
        "card": card_of(folder) if here else "",
        "front": front_of(folder) if here else {},
        "choices": releases.choices(state, found.key),
        "teachers": list(state.known_teachers()),
        "runs": state.reader.names()[:_MOST_RUNS],
    }


@router.get("/ui/releases/pulled/{name}/answers")
def pulled_answers(name: str, caller: Viewer, state: AppStateOf, request: Request) -> Response:
    """The questions to ask of somebody's release, with what the machine found: computed again in a child process."""
    found, address = releases.answers(state, name), releases.address_of(name)
    return page("answers", caller, name=name, address=address, answers=found, part=_part(request))


@router.post("/ui/releases/pulled/{name}/{action}")
def act_on_pulled(name: str, action: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Remove a pulled release, or make it again with a teacher of ours, after its texts were shown and agreed to."""
    check_role(caller, "run")
    if action == "remove":
        releases.remove(state, name)
        return to("/ui/releases")
    if action != "regenerate":
        raise Problem(404, f"There is no button '{action}'.")
    values = _pulled(state, name)
    try:
        wanted = pulled_again_in(form)
        starting.pulled_again(state, name, wanted, caller)
    except starting.Preview as shown:
        values |= {"form": form, "preview": shown.text, "agreed": shown.digest, "message": ""}
        return page("pulled", caller, **values)
    except (UserError, Problem) as error:
        return page("pulled", caller, 422, **values, form=form, preview="", agreed="", message=str(error))
    return to(f"/ui/runs/{quote(wanted.name)}")


@router.get("/ui/runs/{name}/release")
def show_release(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """A run's release: its gate, its card, how it differs from another, and publishing it."""
    return page("release", caller, tab="release", **_release(state, name))


@router.get("/ui/runs/{name}/release/work")
def release_work(name: str, caller: Viewer, state: AppStateOf, seen: str = "") -> Response:
    """What is being done with a release and what came of it, where that has changed."""
    values = _release(state, name, card=False)
    if seen == values["mark"]:
        return Response(status_code=204)
    shown = page("release_work", caller, **values)
    # A card, a gate and differences of before would stand around it.
    if seen.partition("-")[0] != values["mark"].partition("-")[0]:
        shown.headers["hx-refresh"] = "true"
    return shown


def _release(state: AppState, name: str, card: bool = True) -> dict[str, Any]:
    run = state.run(name)
    folder = run.path / "release"
    # What the mark is of comes first: what is shown may be newer than its mark, and never older.
    jobs = [job for job in state.queue.latest_of_each(name) if job.action in ("release", "publish")]
    here = (folder / "lineage.json").exists()
    built = (folder / "lineage.json").stat().st_mtime_ns if here else 0
    repos = releases.published(state, name)
    found = state.run_state(name)
    return {
        "run": found,
        "listed": releases.listed(folder) if here else None,
        "checked": "check" in found.stages,
        "gate": releases.gate_of(run),
        "jobs": [{"job": job, "printed": printed_by(run.path, job)} for job in jobs],
        "published": repos,
        "mark": f"{built}.{len(repos)}-" + "-".join(f"{job.id}.{job.state}" for job in jobs),
        "choices": releases.choices(state, f"run:{name}", repos),
        "teachers": list(state.known_teachers()),
        "card": card_of(folder, f"/ui/runs/{quote(name)}/release/") if here and card else "",
        "front": front_of(folder) if here and card else {},
    }


@router.get("/ui/runs/{name}/release/{picture:path}")
def show_picture(name: str, picture: str, caller: Viewer, state: AppStateOf) -> Response:
    """A picture of a run's card."""
    path = state.run(name).path / "release" / picture
    if PICTURE.fullmatch(picture) is None or not plain(path).is_file():
        raise Problem(404, f"The release of {name} has no such picture.")
    return FileResponse(path, media_type="image/png")


@router.get("/ui/compare")
def compare(caller: Viewer, state: AppStateOf, request: Request, before: str = "", after: str = "") -> Response:
    """What differs between two releases, and which version that makes; computed in a child process."""
    found = api_releases.compare(caller, state, before, after)
    run = after.removeprefix("run:") if after.startswith("run:") else ""
    return page(
        "compared",
        caller,
        before=before,
        after=after,
        run=run,
        found=found,
        drifted=[one for one in found["drifts"] if one["apart"]],
        proposed=found["proposed"],
        part=_part(request),
    )


@router.post("/ui/runs/{name}/since")
def build_since(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Build a run's release as the version that follows another one, with a changelog of what differs."""
    check_role(caller, "run")
    since = releases.folder_or_address(state.runs, form.text("since"))
    version = validated(ReleaseWanted, {"version": form.text("version") or None}, "the form").version
    arguments = cli_arguments("release build", name, since=since, version=version)
    state.put(state.run(name), "release", arguments, caller.name)
    return to(f"/ui/runs/{quote(name)}/release")


def _part(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"
