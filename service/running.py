"""The service in the foreground: what it refuses to start with, its lock, its socket, and uvicorn."""

import asyncio.constants
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from pipelines.errors import UserError
from pipelines.settings.teacher import load_teachers
from service.app import guarded
from service.app_state import ServeSettings, opened
from service.http.connections import HEADERS_S, limits
from service.store import home_of

# Listeners get the end of the stream; those still connected after this many seconds are cut off.
_GOODBYE_S = 2
# asyncio takes in so many new connections before it reads from any: with more than connections.MOST_WAITING a request
# that is already there would be cut off unread.
_BACKLOG = 128


def run(settings: ServeSettings, certfile: Path | None, keyfile: Path | None, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UserError: an address that is not safe to listen at, another service on these runs, a taken port, or a file of
            teachers, prompts or TLS that cannot be read.
    """
    settings.runs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home_of(settings.runs) / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another service works on {settings.runs} already. Stop it, or choose other --runs."
        ) from error
    try:
        _check(settings, certfile, keyfile)
        with _listening(settings) as listener:
            settings = replace(settings, port=listener.getsockname()[1])
            _serve(settings, listener, certfile, keyfile, say)
    finally:
        lock.release()


def _serve(
    settings: ServeSettings, listener: socket.socket, certfile: Path | None, keyfile: Path | None,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    state = opened(settings, dict(os.environ))
    if not settings.loopback and not state.tokens.listed():
        raise UserError(
            f"At {settings.host} others can reach the service, and there is no token that they would need. Make one "
            "first: saferthoughts serve token add NAME --role read"
        )
    scheme = "https" if certfile else "http"
    # uvicorn has no setting for it, and asyncio's minute would let connections without a handshake pile up.
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = HEADERS_S
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{scheme}://{host}:{settings.port}"
    server = uvicorn.Server(
        uvicorn.Config(
            guarded(state),
            # An access log would hold one-time links.
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=settings.behind_proxy,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
            timeout_graceful_shutdown=_GOODBYE_S,
            backlog=_BACKLOG,
            **limits(),
        )
    )
    say(f"SaferThoughts serves {settings.runs} at {address}. Ctrl-C stops it; runs that are under way go on.")
    # With a proxy in between the session's cookie goes over TLS only, and so to the proxy.
    where = f"https://{settings.host_names[0]}" if settings.behind_proxy else address
    say(f"Open once, in a browser of yours: {where}/login?code={state.tokens.one_time_code()}")
    # From before the event loop begins, whose own way to stop cancels what uvicorn has begun, with a traceback.
    with server.capture_signals():
        server.run(sockets=[listener])


def _check(settings: ServeSettings, certfile: Path | None, keyfile: Path | None) -> None:
    if (certfile is None) != (keyfile is None):
        raise UserError("--certfile and --keyfile go together.")
    for file in (certfile, keyfile):
        if file is not None and not file.is_file():
            raise UserError(f"There is no file {file}.")
    if not settings.loopback and certfile is None and not settings.behind_proxy:
        raise UserError(
            f"At {settings.host} others can reach the service, and tokens would go over the wire in the clear. Give "
            "--certfile and --keyfile, or --behind-proxy where a proxy of yours speaks TLS."
        )
    if settings.behind_proxy and not settings.host_names:
        raise UserError("--behind-proxy needs the name that the proxy passes on: --hostname NAME.")
    load_teachers(settings.teachers)
    for option in ("prompts", "recipes", "students"):
        folder = getattr(settings, option)
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{option} {folder} is no folder.")


def _listening(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Said to be TCP: of others asyncio does not know that it may send small answers at once, and each takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(
            f"Cannot listen at {settings.host}:{settings.port} ({error}). Choose another with --host and --port."
        ) from error
    return listener
