"""The service's HTTP API in OpenAPI's words: for `/openapi.json` and for the page that shows it."""

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi


def description_of(app: FastAPI) -> dict[str, object]:
    """The API as OpenAPI has it; the page's own paths are no part of it."""
    found: dict[str, object] = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    return found
