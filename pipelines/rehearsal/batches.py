"""The rehearsal server's Batch API: files and batches of chat requests, in memory only.

POST /v1/files                   an upload of purpose `batch`
GET  /v1/files/ID/content        an upload, an output file or an error file
POST /v1/batches                 begins a batch over an upload
GET  /v1/batches                 all of them, the newest first, in pages
GET  /v1/batches/ID
POST /v1/batches/ID/cancel

The shares of faults that befall requests befall the lines of a batch too: 429 and 500 end in the error file with that
status, a hung line expires, a cut one times out, a truncated one is answered in part.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

from pipelines.rehearsal.faults import RehearsalSettings, cut_at, fault_of
from pipelines.rehearsal.performer import MODELS
from pipelines.rehearsal.protocol import BadRequest, ChatRequest, error, parse

_ENDPOINT = "/v1/chat/completions"
_WINDOW_S = 24 * 3600
# Lines answered before other requests get their turn.
_AT_ONCE = 20
_UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
# What the API says of a line that was never answered, by code.
_UNANSWERED = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
    "request_timeout": "The request timed out.",
}

# Makes a completion of a request, given by its fields and its digest; with a share, cut off after that share.
Complete: TypeAlias = Callable[[ChatRequest, bytes, float | None], dict[str, Any]]


@dataclass(slots=True)
class _Batch:
    document: dict[str, Any]
    lines: list[dict[str, Any]]
    work: asyncio.Task[None] | None = field(default=None, repr=False)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def unfinished(self) -> bool:
        return self.document["status"] in _UNFINISHED


class Batches:
    """The files and batches of one server, from one event loop."""

    def __init__(self, settings: RehearsalSettings, complete: Complete) -> None:
        self._settings, self._complete = settings, complete
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, _Batch] = {}
        self._seen: Counter[bytes] = Counter()
        self._uploads = self._lines = 0
        self._ids = (f"{number:08d}" for number in itertools.count(1))

    def routes(self) -> list[web.RouteDef]:
        """What to register with the application."""
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files/{id}/content", self._content),
            web.post("/v1/batches", self._begin),
            web.get("/v1/batches", self._list),
            web.get("/v1/batches/{id}", self._one),
            web.post("/v1/batches/{id}/cancel", self._cancel),
        ]

    def counts(self) -> dict[str, int]:
        """Uploads tried, batches begun, lines answered or failed, and those of them that were identical to another."""
        repeats = sum(self._seen.values()) - len(self._seen)
        return {"uploads": self._uploads, "begun": len(self._batches), "lines": self._lines, "repeats": repeats}

    async def close(self) -> None:
        """Drop whatever is under way."""
        work = [batch.work for batch in self._batches.values() if batch.work is not None]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    async def _upload(self, request: web.Request) -> web.Response:
        self._uploads += 1
        form = await request.post()
        if self._uploads <= self._settings.fail_uploads:
            return _refuse(500, "The upload failed (rehearsed).", "server_error")
        upload = form.get("file")
        if form.get("purpose") != "batch" or not isinstance(upload, web.FileField):
            return _refuse(400, "An upload needs a file, and `batch` as its purpose.")
        content = upload.file.read()
        name = self._keep(content)
        document = {"id": name, "object": "file", "bytes": len(content), "created_at": int(time.time())}
        return web.json_response({**document, "filename": upload.filename, "purpose": "batch", "status": "processed"})

    async def _content(self, request: web.Request) -> web.Response:
        content = self._files.get(request.match_info["id"])
        if content is None:
            return _refuse(404, f"No such File object: {request.match_info['id']}")
        return web.Response(body=content, content_type="application/octet-stream")

    async def _begin(self, request: web.Request) -> web.Response:
        asked = await request.json()
        content = self._files.get(asked.get("input_file_id"))
        if content is None or asked.get("endpoint") != _ENDPOINT or asked.get("completion_window") != "24h":
            return _refuse(400, f"A batch needs an uploaded file, the endpoint {_ENDPOINT} and the window 24h.")
        lines = [json.loads(line) for line in content.splitlines()]
        now = int(time.time())
        document = {
            "id": f"batch_{next(self._ids)}", "object": "batch", "endpoint": _ENDPOINT, "completion_window": "24h",
            "input_file_id": asked["input_file_id"], "output_file_id": None, "error_file_id": None, "errors": None,
            "status": "validating", "created_at": now, "expires_at": now + _WINDOW_S,
            "metadata": asked.get("metadata"),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }  # fmt: skip
        batch = _Batch(document, lines)
        if problems := self._problems(lines):
            document.update(status="failed", failed_at=now, errors={"object": "list", "data": problems})
        self._batches[document["id"]] = batch
        if batch.unfinished:
            batch.work = asyncio.create_task(self._work(batch))
        if len(self._batches) <= self._settings.lose_batches:
            await asyncio.Event().wait()
        return web.json_response(document)

    def _problems(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Why a batch is not begun at all; nothing where it is."""
        waiting = sum(len(batch.lines) for batch in self._batches.values() if batch.unfinished)
        if self._settings.batch_queue is not None and waiting + len(lines) > self._settings.batch_queue:
            limit = f"Limit: {self._settings.batch_queue} requests"
            message = f"Enqueued limit reached (rehearsed). {limit}. Try again once some batches have been completed."
            return [{"code": "token_limit_exceeded", "message": message, "line": None, "param": None}]
        seen: set[str] = set()
        problems = []
        for number, line in enumerate(lines, 1):
            model = line["body"].get("model")
            if line["custom_id"] in seen:
                message = f"The custom_id '{line['custom_id']}' occurs twice."
                problems.append(
                    {"code": "duplicate_custom_id", "message": message, "line": number, "param": "custom_id"}
                )
            elif model not in MODELS:
                message = f"The model '{model}' does not exist. Choose from: {', '.join(MODELS)}."
                problems.append({"code": "model_not_found", "message": message, "line": number, "param": "body.model"})
            seen.add(line["custom_id"])
        return problems

    async def _list(self, request: web.Request) -> web.Response:
        newest = [batch.document for batch in reversed(self._batches.values())]
        after = request.query.get("after")
        start = next((index + 1 for index, document in enumerate(newest) if document["id"] == after), 0)
        limit = int(request.query.get("limit", "20"))
        page = newest[start : start + limit]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        return web.json_response({"object": "list", "data": page, **ends, "has_more": start + limit < len(newest)})

    async def _one(self, request: web.Request) -> web.Response:
        batch = self._batches.get(request.match_info["id"])
        if batch is None:
            return _refuse(404, f"No batch found with id '{request.match_info['id']}'.")
        return web.json_response(batch.document)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._batches.get(request.match_info["id"])
        if batch is None or not batch.unfinished:
            return _refuse(404 if batch is None else 409, "There is no such batch under way.")
        batch.document["status"] = "cancelling"
        batch.cancelled.set()
        return web.json_response(batch.document)

    async def _work(self, batch: _Batch) -> None:
        """Answer a batch's lines; those that a cancellation comes before are not answered."""
        document, counts = batch.document, batch.document["request_counts"]
        document.update(status="in_progress", in_progress_at=int(time.time()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(batch.cancelled.wait(), self._settings.batch_delay)
        output: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        expired = False
        for number, line in enumerate(batch.lines):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            result = _unanswered("batch_cancelled") if batch.cancelled.is_set() else self._answer(line)
            expired |= result["error"] is not None and result["error"]["code"] == "batch_expired"
            good = result["error"] is None and result["response"]["status_code"] == 200
            counts["completed" if good else "failed"] += 1
            (output if good else errors).append({"id": f"req_{number}", "custom_id": line["custom_id"], **result})
        document["output_file_id"] = self._keep(_jsonl(output)) if output else None
        document["error_file_id"] = self._keep(_jsonl(errors)) if errors else None
        status = "cancelled" if batch.cancelled.is_set() else "expired" if expired else "completed"
        document.update({"status": status, f"{status}_at": int(time.time())})

    def _answer(self, line: dict[str, Any]) -> dict[str, Any]:
        """A line's `response` and `error`, one of them null."""
        body = json.dumps(line["body"], sort_keys=True).encode()
        digest = hashlib.sha256(body).digest()
        attempt = self._seen[digest]
        self._seen[digest] += 1
        self._lines += 1
        try:
            asked = parse(body)
        except BadRequest as reason:
            return _response(400, json.loads(error(str(reason))))
        fault = fault_of(self._settings, digest, attempt)
        if fault == "hang":
            return _unanswered("batch_expired")
        if fault == "cut":
            return _unanswered("request_timeout")
        if fault in ("429", "500"):
            return _response(int(fault), json.loads(error("The line failed (rehearsed).", "server_error")))
        share = cut_at(self._settings, digest, attempt) if fault == "truncate" else None
        return _response(200, self._complete(asked, digest, share))

    def _keep(self, content: bytes) -> str:
        name = f"file-{next(self._ids)}"
        self._files[name] = content
        return name


def _jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for line in lines)


def _response(status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"response": {"status_code": status, "request_id": "", "body": body}, "error": None}


def _unanswered(code: str) -> dict[str, Any]:
    return {"response": None, "error": {"code": code, "message": _UNANSWERED[code]}}


def _refuse(status: int, message: str, kind: str = "invalid_request_error") -> web.Response:
    return web.Response(status=status, body=error(message, kind), content_type="application/json")
