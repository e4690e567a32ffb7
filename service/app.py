"""The ASGI application: API, page, request filters and background work.

`saferthoughts serve` runs it (`saferthoughts/cli/serve.py`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from pipelines.errors import UserError
from pipelines.runs import VERSION
from service.app_state import AppState
from service.http.access import caller_of
from service.http.description import description_of
from service.http.problems import Problem
from service.http.request_filters import Refusals, RequestFilters
from service.models import api_models
from service.page import page
from service.releases import api_releases
from service.review import api_review
from service.review.reviews import VotesWatcher
from service.run import api

_STATIC = Path(__file__).parent / "page" / "static"


def application(state: AppState) -> FastAPI:
    """The ASGI application of a service."""

    @asynccontextmanager
    async def working(app: FastAPI) -> AsyncIterator[None]:
        state.supervisor.start()
        watching = [asyncio.create_task(work()) for work in (state.broadcaster.work, VotesWatcher(state).work)]
        yield
        for task in watching:
            task.cancel()
        await asyncio.to_thread(state.argilla.close)
        state.supervisor.stop()
        state.rows.close()
        state.store.close()

    app = FastAPI(
        title="SaferThoughts",
        version=VERSION,
        summary="From prompts to safe reasoning data, over HTTP.",
        lifespan=working,
        # FastAPI's own pages load scripts from elsewhere; /docs is ours.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.parts = state
    app.state.refusals = Refusals()
    app.include_router(api.open_router)
    app.include_router(api.router)
    app.include_router(api_review.router)
    app.include_router(api_models.router)
    app.include_router(api_releases.router)
    app.include_router(page.router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    for kind in (Problem, UserError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, page.answer_with_problem)

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(caller_of)])
    async def described(request: Request) -> JSONResponse:
        return JSONResponse(description_of(app))

    return app


def guarded(state: AppState) -> RequestFilters:
    """The same behind its guard, as it is served."""
    return RequestFilters(application(state), state.settings)
