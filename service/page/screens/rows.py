"""A run's rows: /ui/runs/RUN/rows, /rows/PROMPT, /diff, /history/RESPONSE; all of a list is in its address."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from pipelines.errors import UserError
from pipelines.judges.spans import marked
from pipelines.records import PATTERNS
from service.http import shapes
from service.http.access import AppStateOf, check_role
from service.http.problems import Problem
from service.page.screens.shared import Posted, Viewer, page, to
from service.rows.columns import OPERATORS, WORST, Filter
from service.rows.layout import COLUMNS
from service.rows.reading import Query as RowQuery
from service.rows.reading import RowIndex, query_from
from service.rows.text_diff import changed
from service.rows.words import LONGEST, PARTS
from service.run import api

PER_PAGE = 25
# Until the page says that the rows are still being laid out.
_WAIT_S = 5.0
# In place of a figure to sort by: the order of the file.
_MILD = "mild"
_SORTS = {"-worst": "worst first", _MILD: "mild first"} | {
    sign + name: f"{most} {name.removesuffix('_s').replace('_', ' ')}"
    for name in ("output_tokens", "input_tokens", "cost", "latency_s", "patterns", "disagreement", "attempt")
    for sign, most in (("-", "most"), ("", "least"))
}
# Several filters in one field, as people type them.
_BETWEEN = re.compile(rf"\s+(?=(?:{'|'.join(COLUMNS)}):(?:{'|'.join(OPERATORS)}):)")

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class View:
    """What a list's address says. Earlier addresses have `config`, `outcome` and `flag`, which are filters too."""

    where: tuple[str, ...]
    q: str
    within: str
    sort: str

    def query(self, default: str = "-worst") -> RowQuery:
        """The rows that are meant; in the order `default` where none is named."""
        sort = self.sort or default
        return query_from(self.where[: api.MOST_FILTERS], self.q, self.within, "" if sort == _MILD else sort)

    def address(self, **beside: Any) -> str:
        """The part of an address after "?"."""
        own = {"where": self.where, "q": self.q, "within": self.within, "sort": self.sort}
        return urlencode({key: value for key, value in (own | beside).items() if value}, doseq=True)


def view_of(fields: Mapping[str, list[str]]) -> View:
    """The view of an address's or a form's fields."""
    texts = [text for key in ("where", "add") for one in fields.get(key, []) for text in _BETWEEN.split(one.strip())]
    for key in ("config", "outcome"):
        texts += [f"{key}:eq:{one}" for one in fields.get(key, [])]
    known = {"any": "patterns:ge:1", "unsafe": "safety:eq:unsafe", "": ""}
    texts += [known.get(flag, f"{flag}:eq:true") for flag in fields.get("flag", [])]
    where = tuple(dict.fromkeys(text for text in texts if text and not text.endswith(":eq:")))
    q, within, sort = ((fields.get(key) or [""])[0] for key in ("q", "within", "sort"))
    return View(where, q[:LONGEST].strip(), within, sort)


def asked_view(request: Request) -> View:
    """The view of a request's address."""
    return view_of({key: request.query_params.getlist(key) for key in request.query_params})


AskedView = Annotated[View, Depends(asked_view)]


@router.get("/ui/runs/{name}/rows")
def list_rows(
    name: str, caller: Viewer, state: AppStateOf, view: AskedView, offset: Annotated[int, Query(ge=0, le=10**9)] = 0
) -> Response:
    """A run's rows: searched, filtered, sorted, counted."""
    if not state.run(name).table_path("responses").exists():
        return page("no_rows", caller, tab="rows", name=name, state=state.run_state(name))
    index = state.rows.soon(api.has_rows(state, name), _WAIT_S)
    shown: dict[str, Any] = {"found": None, "counts": {}, "wrong": "", "waiting": "", "ready": True}
    if index is None:
        shown["waiting"] = "The rows are being laid out for reading, which takes about a minute for 100,000."
    else:
        shown["ready"] = index.searchable()
        try:
            query = view.query(_default(index))
            shown |= {"found": index.page(query, offset, PER_PAGE, texts=False), "counts": index.counts(query)}
        except UserError as error:
            shown["wrong"] = str(error)
        except Problem as problem:
            shown["waiting"] = problem.detail
    return page(
        "rows",
        caller,
        tab="rows",
        name=name,
        view=view,
        offset=offset,
        per_page=PER_PAGE,
        sorts=({view.sort: view.sort} if view.sort else {}) | _SORTS,
        sort=view.sort or (_default(index) if index else ""),
        worst=WORST,
        parts=PARTS,
        patterns=PATTERNS,
        chips=_chips(view, shown["counts"]),
        taken=[(text, view.address(where=[one for one in view.where if one != text])) for text in view.where],
        **shown,
    )


def _default(index: RowIndex) -> str:
    """Worst first where anything was judged."""
    return "-worst" if index.judged else _MILD


def _chips(view: View, counts: dict[str, list[tuple[Filter, int]]]) -> list[dict[str, Any]]:
    """The filters that can be added, or taken away where they hold, by column."""
    groups = []
    for name, found in counts.items():
        chips = []
        for one, count in found:
            text = str(one)
            on = text in view.where
            own = [each for each in view.where if not each.startswith(f"{one.column}:{one.operator}:")]
            where = [each for each in view.where if each != text] if on else [*own, text]
            label = {"patterns": "any pattern", "attempt": "repaired"}.get(one.column, one.column)
            label = label if name == "flags" else str(one.value)
            if count or on:
                chips.append({"label": label, "count": count, "on": on, "address": view.address(where=where)})
        if len(chips) > 1 or any(chip["on"] for chip in chips):
            groups.append({"name": {"config": "variant"}.get(name, name), "chips": chips})
    return groups


@router.post("/ui/runs/{name}/rows")
def use_rows(name: str, caller: Viewer, state: AppStateOf, form: Posted) -> Response:
    """A button below the list: export the ticked rows, or all that fit, or send them to people's review."""
    index = state.rows.of(api.has_rows(state, name))
    view = view_of({key: form.texts(key) for key in ("where", "q", "within", "sort")})
    query, ids, action = view.query(_default(index)), form.texts("id")[: api.MOST_PICKED], form.text("do")
    if action == "review":
        check_role(caller, "run")
        numbers = index.numbers_of(ids) if ids else index.listing(query)
        if len(numbers) > shapes.MOST_REVIEWED:
            detail = f"{len(numbers):,} rows fit, and people are sent {shapes.MOST_REVIEWED:,} at most: filter further."
            raise Problem(422, detail)
        picked = tuple(row["response_id"] for row in index.columns.rows([int(one) for one in numbers]))
        api.review(name, caller, state, shapes.ReviewWanted(ids=picked))
        return to(f"/ui/runs/{quote(name)}")
    if action not in ("jsonl", "parquet"):
        raise Problem(404, f"There is no button '{action[:64]}'.")
    sort = {"sort": query.sort} if query.sort else {"sort": ""}
    return to(f"/runs/{quote(name)}/rows/export?{view.address(format=action, id=ids, **sort)}")


@router.get("/ui/runs/{name}/rows/{prompt_id}")
def show_prompt(
    name: str, prompt_id: str, caller: Viewer, state: AppStateOf, view: AskedView, at: str = ""
) -> Response:
    """Every response to one prompt, side by side; with the way through the list that it was opened from."""
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
    return page("prompt", caller, tab="rows", name=name, rows=found, at=at, **_way(index, name, view, at))


def _way(index: RowIndex, name: str, view: View, at: str) -> dict[str, Any]:
    """Back to the list at the row's page, and the rows before and after it."""
    links: dict[str, Any] = {"place": None, "before": "", "after": ""}
    try:
        around = index.around(view.query(_default(index)), at) if at else None
    except (UserError, Problem):
        around = None
    path, offset = f"/ui/runs/{quote(name)}/rows", 0
    if around is not None:
        place, total, *neighbours = around
        links["place"], offset = (place + 1, total), place - place % PER_PAGE
        for key, response_id in zip(("before", "after"), neighbours, strict=True):
            for row in index.columns.rows([int(one) for one in index.numbers_of([response_id])]):
                own = quote(row["response_id"], safe="")
                links[key] = f"{path}/{quote(row['prompt_id'], safe='')}?{view.address(at=row['response_id'])}#{own}"
    back = f"{path}?{view.address(offset=offset)}" + (f"#r-{quote(at, safe='')}" if around else "")
    return {"back": back, **links}


@router.get("/ui/runs/{name}/diff")
def compare(name: str, caller: Viewer, state: AppStateOf, a: str, b: str) -> Response:
    """Two responses of a run, with the words that differ."""
    index = state.rows.of(api.has_rows(state, name))
    pair = [index.response(one) for one in (a, b)]
    if pair[0] is None or pair[1] is None:
        raise Problem(404, f"{name} has no response '{(a if pair[0] is None else b)[:64]}'.")
    first, second = pair[0], pair[1]
    parts = {part: changed(first[part] or "", second[part] or "") for part in PARTS if first[part] != second[part]}
    return page("diff", caller, tab="rows", name=name, first=first, second=second, parts=parts)


@router.get("/ui/runs/{name}/history/{response_id}")
def history(name: str, response_id: str, caller: Viewer, state: AppStateOf) -> Response:
    """The history of one row."""
    from curation.row_history import row_history

    parts = row_history(api.has_rows(state, name), response_id).parts
    return page("history", caller, tab="rows", name=name, parts=parts, response_id=response_id)
