"""A run's rows: /ui/runs/RUN/rows, /rows/PROMPT, /history/RESPONSE."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipelines.errors import UserError
from pipelines.judges.spans import marked
from pipelines.records import PATTERNS
from service import api
from service.access import AppStateOf
from service.problems import Problem
from service.rows import filter_of
from service.screens.shared import Viewer, page

PER_PAGE = 25

router = APIRouter(include_in_schema=False)


@router.get("/ui/runs/{name}/rows")
def list_rows(
    name: str, caller: Viewer, state: AppStateOf, request: Request, offset: Annotated[int, Query(ge=0, le=10**9)] = 0
) -> Response:
    """A run's rows, filtered by the form above them."""
    if not state.run(name).table_path("responses").exists():
        return page("no_rows", caller, tab="rows", name=name, state=state.run_state(name))
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
    found = index.page(filters, offset, PER_PAGE, texts=False)
    part = request.headers.get("hx-target") == "rows"
    return page(
        "rows_part" if part else "rows",
        caller,
        tab="rows",
        name=name,
        page=found,
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
    return page("prompt", caller, tab="rows", name=name, rows=found, at=at)


@router.get("/ui/runs/{name}/history/{response_id}")
def history(name: str, response_id: str, caller: Viewer, state: AppStateOf) -> Response:
    """The history of one row."""
    from curation.row_history import row_history

    parts = row_history(api.has_rows(state, name), response_id).parts
    return page("history", caller, tab="rows", name=name, parts=parts, response_id=response_id)
