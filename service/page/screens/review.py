"""People's review: the Argilla server, and each run's rows, votes, gate: /ui/argilla, /ui/review, /ui/review/RUN."""

from contextlib import suppress
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from pipelines.errors import UserError, unknown
from pipelines.runs import RunFolder
from pipelines.settings.parts import validated
from service.app_state import AppState
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.http.tokens import Caller
from service.page.forms import people_in, review_in
from service.page.screens.shared import Place, Posted, Viewer, page, to
from service.review.argilla import MOST_PEOPLE
from service.review.reviews import Applying, apply_votes, preview_apply, pull_votes, review_state, sent_and_pulled
from service.run import api

router = APIRouter(include_in_schema=False)
PLACE = Place(30, "Review", "/ui/review")
_MOST_LISTED = 50
_PREVIEWED = 200


@router.get("/ui/review")
def list_reviews(caller: Viewer, state: AppStateOf) -> Response:
    """The server, and the runs whose rows people can vote on."""
    return _list(caller, state)


def _list(caller: Caller, state: AppState, accounts: list[dict[str, str]] | None = None, message: str = "") -> Response:
    names = state.reader.names()
    runs = []
    for name in names[:_MOST_LISTED]:
        # What is broken, the list of runs shows.
        with suppress(UserError, Problem):
            if "check" in state.run_state(name).stages:
                sent, pulled = sent_and_pulled(RunFolder(state.runs / name))
                runs.append({"name": name, "sent": sent.rows if sent else 0, "votes": pulled.votes})
    values = {"argilla": state.argilla.state(), "accounts": accounts, "most_people": MOST_PEOPLE, "message": message}
    return page("reviews", caller, 409 if message else 200, runs=runs, looked_at=len(names[:_MOST_LISTED]),
                all_runs=len(names), **values)  # fmt: skip


@router.get("/ui/argilla/state")
def argilla_part(caller: Viewer, state: AppStateOf) -> Response:
    """The part that shows how the server is."""
    return page("argilla_part", caller, argilla=state.argilla.state(), most_people=MOST_PEOPLE)


@router.post("/ui/argilla")
def change_argilla(caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Start or stop the server, or show its new accounts, once."""
    action = form.text("do")
    check_role(caller, "publish" if action == "accounts" else "run")
    if action == "accounts":
        return _list(caller, state, accounts=state.argilla.take_accounts())
    try:
        if action == "start":
            state.argilla.start(people_in(form))
        elif action == "stop":
            state.argilla.stop()
        else:
            raise unknown("action", action[:80], ("start", "stop", "accounts"))
    except (UserError, Problem) as error:
        return _list(caller, state, message=str(error))
    return to("/ui/review")


@router.get("/ui/review/{name}")
def show_review(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """One run's review."""
    return page("review", caller, **_review(state, name), message="", preview=None)


@router.get("/ui/review/{name}/live")
def review_part(name: str, caller: Viewer, state: AppStateOf) -> Response:
    """The part of it that moves."""
    return page("review_part", caller, **_review(state, name), preview=None)


def _review(state: AppState, name: str) -> dict[str, Any]:
    run = state.run(name)
    return {
        "run": state.run_state(name),
        "review": review_state(state, run),
        "argilla": state.argilla.state(),
    }


@router.post("/ui/review/{name}")
def change_review(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """Send rows, pull votes, preview what they change, apply it."""
    check_role(caller, "run")
    run = state.run(name)
    action = form.text("do")
    preview = None
    try:
        if action == "push":
            api.review(name, caller, state, review_in(form))
        elif action == "pull":
            pull_votes(state, run, caller.name)
        elif action == "preview":
            preview = preview_apply(state, run)
        elif action == "apply":
            apply_votes(
                state, run, validated(Applying, {"reviews_sha256": form.text("votes")}, "the form"), caller.name
            )
        else:
            raise unknown("action", action[:80], ("push", "pull", "preview", "apply"))
    except (UserError, Problem) as error:
        return page("review", caller, 422, **_review(state, name), message=str(error), preview=None)
    if preview is None:
        return to(f"/ui/review/{quote(name)}")
    return page("review", caller, **_review(state, name), message="", preview=preview, previewed=_PREVIEWED)
