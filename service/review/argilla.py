"""The Argilla server of this service: started and stopped from the page, its new accounts held until they are shown.

Runs `curation/review/serve.py` in a thread; the server is a process of its own, on loopback, and ends with the service.
"""

import json
import os
import threading
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, Field

from curation.review.home import URL_VARIABLE, forget, home_of
from curation.review.serve import SERVER, environment_ready, serving
from pipelines.errors import refusal_of
from pipelines.teachers.vllm_server import port_problem
from service.http.problems import Problem

# What `review serve` takes; another where that is taken.
_PORT = 6900
_LOOK_EVERY_S = 0.5
MOST_PEOPLE = 50
_STOP_S = 30.0


class ArgillaState(BaseModel):
    """Where people vote."""

    state: Literal["yours", "starting", "running", "stopped"] = Field(
        description="yours: the server that ARGILLA_API_URL names, which this service neither starts nor stops"
    )
    url: str = Field(description="empty where none runs")
    problem: str = Field(description="why the last start failed, or what is to be installed first")
    new_accounts: int = Field(description="accounts that were made and not shown yet")


class ArgillaServer:
    """At most one server for a folder of runs; safe to call from any thread."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem = ""
        self._accounts: list[dict[str, str]] = []

    def state(self) -> ArgillaState:
        """What runs now."""
        missing = _to_install()
        named = os.environ.get(URL_VARIABLE, "")
        if named:
            return ArgillaState(state="yours", url=named.rstrip("/"), problem="", new_accounts=0)
        url, process = _running(self._runs)
        starting = self._thread is not None and self._thread.is_alive()
        state: Literal["starting", "running", "stopped"] = (
            "running" if process is not None else "starting" if starting else "stopped"
        )
        shown = "" if state == "running" else missing or self._problem
        return ArgillaState(state=state, url=url, problem=shown, new_accounts=len(self._accounts))

    def start(self, people: int) -> None:
        """Begin to start it; `state` says when it runs.

        Raises:
            Problem: 409, one runs or is named, or something is to be installed first.
        """
        with self._lock:
            there = self.state()
            if there.state != "stopped":
                raise Problem(409, f"Argilla: {there.state}{f' at {there.url}' if there.url else ''}.")
            if missing := _to_install():
                raise Problem(409, missing)
            self._problem = ""
            self._ending.clear()
            self._thread = threading.Thread(target=self._serve, args=(people,), name="argilla", daemon=True)
            self._thread.start()

    def _serve(self, people: int) -> None:
        home = home_of(self._runs)
        try:
            with serving(home, 0 if port_problem(_PORT) else _PORT, people, lambda _: None) as running:
                self._accounts.extend(running.new_accounts)
                while not self._ending.wait(_LOOK_EVERY_S):
                    if running.ended():
                        self._problem = f"The Argilla server has ended; {home.name}/server.log says why."
                        return
        except Exception as error:  # noqa: BLE001 - whatever it is, the page says so
            message = refusal_of(error)
            if message is None:
                traceback.print_exc()
            self._problem = message or "Argilla did not start; the service's own log says why."

    def stop(self) -> None:
        """End it, also one that an earlier service or `review serve` started for these runs; votes are kept."""
        with self._lock:
            self._ending.set()
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            _, process = _running(self._runs)
            if process is not None:
                process.terminate()
                _, alive = psutil.wait_procs([process], timeout=_STOP_S)
                for one in alive:
                    one.kill()
                forget(home_of(self._runs))

    def close(self) -> None:
        """The service ends: so does the server that it started, and no other."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def take_accounts(self) -> list[dict[str, str]]:
        """Names and passwords of the accounts that were made, once: they are forgotten here."""
        with self._lock:
            found, self._accounts = self._accounts, []
            return [{name: one[name] for name in ("username", "role", "password")} for one in found]


def _to_install() -> str:
    if find_spec("argilla") is None:
        return 'Argilla\'s client is not installed. On the machine of the service: pip install -e ".[review]"'
    if not environment_ready():
        return (
            "argilla-server has an environment of its own, which is not there yet. Make it once, on the machine of the "
            "service: saferthoughts review serve (about a minute; Ctrl-C when it runs)."
        )
    return ""


def _running(runs: Path) -> tuple[str, psutil.Process | None]:
    """Address and process of the server of these runs; a number that another process has now is none."""
    try:
        home = home_of(runs)
        noted = json.loads((home / "server.json").read_text(encoding="utf-8"))
        process = psutil.Process(int(noted["pid"]))
        if {str(SERVER), str(home.resolve())} <= set(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
            return str(noted["url"]), process
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass
    return "", None
