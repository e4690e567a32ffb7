"""The real argilla-server on one machine: SQLite, our search engine, and a Redis that lives in this process.

Run by `saferthoughts review serve` with the Python of argilla-server's own environment:

    PYTHON main.py HOME PORT

Reads HOME/credentials.json (owner, annotators, secret); writes HOME/argilla.db and what the server keeps beside it.
Ends on SIGTERM, SIGINT, or when its parent is gone.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

HOME, PORT = Path(sys.argv[1]), int(sys.argv[2])
WORKSPACE = "saferthoughts"


def main() -> None:
    """Prepare everything and serve."""
    parent = os.getppid()
    credentials = json.loads((HOME / "credentials.json").read_text(encoding="utf-8"))
    # argilla_server reads its settings when it is imported.
    os.environ.update(
        ARGILLA_HOME_PATH=str(HOME),
        ARGILLA_SEARCH_ENGINE="sql",
        ARGILLA_CORS_ORIGINS="[]",
        ARGILLA_AUTH_SECRET_KEY=credentials["secret"],
        ARGILLA_DOCS_ENABLED="0",
        ARGILLA_ENABLE_SHARE_YOUR_PROGRESS="0",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    sys.path.insert(0, str(Path(__file__).parent))
    _without_redis()
    import argilla_server
    import engine
    import uvicorn
    from argilla_server.cli.database.migrate import migrate_db
    from argilla_server.database import sync_engine
    from guard import ServerFilters
    from sqlalchemy import event, text
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")  # type: ignore[untyped-decorator, unused-ignore]
    def _tune(connection: Any, _: Any) -> None:
        # A write-ahead log: readers do not wait for who logs records, and kill -9 loses nothing that was committed.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 30000"):
            connection.execute(f"PRAGMA {pragma}")

    _lighten()
    migrate_db("head")
    with sync_engine.begin() as connection:
        for statement in engine.FULL_TEXT:
            connection.execute(text(statement))
    asyncio.run(_accounts(credentials))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # uvicorn raises the signal again after it has stopped; the default action would then be to die of it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    pages = Path(argilla_server.__file__).parent / "static"
    uvicorn.run(
        ServerFilters(argilla_server.app, pages),
        host="127.0.0.1",
        port=PORT,
        log_level="warning",
        access_log=False,
        # Argilla's client keeps its connections and fails on one that was closed while it was busy elsewhere.
        timeout_keep_alive=600,
    )


def _lighten() -> None:
    """Take two needless costs of logging records off version 2.8.0, nine tenths of the time of each record.

    It builds the same pydantic adapter for every value of metadata, and for every record the event of a webhook, of
    which this server has none: sending them would take a worker that is not here.
    """
    from argilla_server.bulk import records_bulk
    from argilla_server.models import database
    from pydantic import TypeAdapter

    adapters: dict[Any, Any] = {}

    def adapter(kind: Any) -> Any:
        key = id(kind)
        if key not in adapters:
            adapters[key] = (TypeAdapter(kind), kind)
        return adapters[key][0]

    async def no_event(*_: Any) -> list[Any]:
        return []

    for module, name, instead in (
        (database, "TypeAdapter", adapter),
        (records_bulk, "notify_record_event_v1", no_event),
    ):
        if not hasattr(module, name):
            raise RuntimeError(f"{module.__name__} has no {name}: this is not argilla-server 2.8.0")
        setattr(module, name, instead)


def _without_redis() -> None:
    """Give the server a Redis that lives in this process, and its one job of ours a place to run.

    fakeredis' server on a socket breaks transactions off now and then, and the server then answers 500; the same store
    without a socket does not. The job brings the records' status up to date when a dataset's distribution changes;
    there is no worker for it, so it runs in the server's own loop.
    """
    import fakeredis
    import redis

    store = fakeredis.FakeRedis()
    redis.from_url = lambda *_, **__: store
    from argilla_server.jobs import dataset_jobs

    job = dataset_jobs.update_dataset_records_status_job
    running: set[Any] = set()

    def start(*args: Any) -> None:
        task = asyncio.get_running_loop().create_task(job(*args))
        running.add(task)
        task.add_done_callback(running.discard)

    job.delay = start


def _end_with(parent: int) -> None:
    """Killed with -9, the command that started this cannot stop it."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


async def _accounts(credentials: dict[str, Any]) -> None:
    """Create the accounts that are not there yet, and the workspace that all of them share."""
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.models import User, Workspace
    from sqlalchemy import select

    async with AsyncSessionLocal() as db:
        workspace = await db.scalar(select(Workspace).where(Workspace.name == WORKSPACE))
        if workspace is None:
            workspace = await accounts.create_workspace(db, {"name": WORKSPACE})
        for account in credentials["accounts"]:
            if await db.scalar(select(User).where(User.username == account["username"])) is not None:
                continue
            user = User(
                first_name=account["username"],
                username=account["username"],
                role=account["role"],
                api_key=account["api_key"],
                password_hash=accounts.hash_password(account["password"]),
            )
            db.add(user)
            await db.flush()
            await accounts.create_workspace_user(db, {"workspace_id": workspace.id, "user_id": user.id})
        await db.commit()


if __name__ == "__main__":
    main()
