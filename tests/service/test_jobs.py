"""Jobs: killed services and killed jobs lose nothing and ask nothing twice; cancelling; the queue; many listeners."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.teachers.ledger import Ledger
from service.http.problems import Problem
from service.http.shapes import RunState
from service.jobs.jobs import MOST_ATTEMPTS, Supervisor
from service.jobs.queue import Queue
from service.run.run_reader import Broadcaster
from service.store import Store
from tests.service.conftest import Service

HARMFUL, IN_FLIGHT = 40, 4
SLOW = {
    "prompts": {"harmful": HARMFUL, "benign": 0},
    "variants": ["short"],
    "roles": {"reasoning": "slow", "general": "slow"},
    "repair": {"attempts": 0},
}


def test_killed_services_and_jobs_ask_nothing_twice(tmp_path: Path) -> None:
    with rehearsing(RehearsalSettings(delay=0.4)) as url:
        teachers = tmp_path / "teachers.yaml"
        entry = {"base_url": url, "model": "rehearsal-r1", "in_flight": IN_FLIGHT, "sampling": {"seed": 0}}
        teachers.write_text(yaml.safe_dump({"slow": entry}))
        service = Service(tmp_path / "runs", "--teachers", str(teachers))

        def stats() -> dict[str, Any]:
            with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
                return dict(json.load(answer))

        assert service.post("/runs", {"name": "long", "config": SLOW}).status_code == 202
        service.until("long", lambda state: state["answers"] >= 4)
        child = _job_of(service)["process"]

        # The service alone is killed: its job goes on, and is found again.
        service.kill()
        before = stats()["requests"]
        _wait(lambda: stats()["requests"] >= before + IN_FLIGHT)
        service.start()
        state = service.until("long", lambda state: state["answers"] >= 14)
        assert state["job"]["state"] == "running"
        assert (_job_of(service)["process"], state["job"]["attempts"]) == (child, 1)
        assert stats()["repeats"] == 0

        # Service and job are killed: the job is started again, and asks for what was in flight alone.
        service.kill()
        os.kill(child, signal.SIGKILL)
        service.start()
        state = service.until_over("long")
        assert (state["state"], state["job"]["attempts"]) == ("released", 2)
        found = stats()
        # The teacher's first question, which is no row, is kept as well.
        assert _answers(service) == found["distinct"] == HARMFUL + 1
        assert found["repeats"] <= IN_FLIGHT
        service.stop()


def test_cancelling_stops_a_job_and_resuming_finishes_it(service: Service) -> None:
    config = {
        "prompts": {"harmful": 12, "benign": 0},
        "variants": ["short"],
        "repair": {"attempts": 0},
        "roles": {"reasoning": "rehearsal"},
    }
    assert service.post("/runs", {"name": "stopped", "config": config}).status_code == 202
    assert service.post("/runs/stopped/resume").status_code == 409
    assert service.post("/runs/stopped/cancel").status_code == 202
    state = service.until_over("stopped")
    assert state["state"] == "stopped"
    assert state["job"]["state"] == "cancelled"
    assert service.post("/runs/stopped/resume", {"max_tokens": 1}).status_code == 202
    state = service.until_over("stopped")
    assert state["state"] == "incomplete"
    assert "Stopped at the budget" in state["job"]["message"]


def test_two_hundred_listeners_hear_of_the_same_change(service: Service) -> None:
    async def listen(client: httpx.AsyncClient, heard: asyncio.Semaphore) -> list[str]:
        async with client.stream("GET", "/runs/small/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            states: list[str] = []
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    state = json.loads(line.removeprefix("data: "))
                    states.append(state["job"]["message"])
                    heard.release()
                    if states[-1] == "changed":
                        return states
            raise AssertionError("the stream ended")

    async def all_of_them() -> list[list[str]]:
        headers = {"authorization": f"Bearer {service.secrets['read']}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=300, limits=limits) as client:
            heard = asyncio.Semaphore(0)
            listeners = [asyncio.create_task(listen(client, heard)) for _ in range(200)]
            for _ in listeners:
                await heard.acquire()
            store = Store(service.runs)
            store.change("UPDATE jobs SET message = 'changed' WHERE run = 'small'")
            store.close()
            return await asyncio.gather(*listeners)

    states = asyncio.run(all_of_them())
    assert len(states) == 200
    assert all(len(one) == 2 and one[-1] == "changed" for one in states)


def test_many_listeners_cost_one_look(service: Service) -> None:
    state = RunState.model_validate(service.get("/runs/small"))
    looks = []

    def look(name: str) -> RunState:
        looks.append(name)
        return state.model_copy(update={"answers": len(looks)})

    async def listen(broadcaster: Broadcaster) -> int:
        count = 0
        async for text in broadcaster.events("small", state):
            count += text.count("event: state")
            if count == 3:
                return count
        return count

    async def listening() -> list[int]:
        broadcaster = Broadcaster(look)
        working = asyncio.create_task(broadcaster.work())
        counts = await asyncio.gather(*(listen(broadcaster) for _ in range(50)))
        assert broadcaster.listening == 0
        working.cancel()
        return counts

    assert asyncio.run(listening()) == [3] * 50
    assert len(looks) <= 3


def test_only_the_process_that_was_started_is_taken_for_a_job(tmp_path: Path) -> None:
    queue = Queue(Store(tmp_path))
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    noted = {"SAFERTHOUGHTS_PROGRESS": str(tmp_path / "unnoted" / ".progress.json")}
    with subprocess.Popen(words, start_new_session=True, env=noted) as process:
        try:
            born = psutil.Process(process.pid).create_time()
            # For a moment after its start a process shows no environment.
            _wait(lambda: "SAFERTHOUGHTS_PROGRESS" in psutil.Process(process.pid).environ())
            for name, started in (("same", born), ("other", born - 100), ("unnoted", None)):
                (tmp_path / name).mkdir()
                job = queue.put(name, "run", ["run", name], "me")
                queue.begin(job)
                if started is not None:
                    queue.note_process(job, process.pid, started)
            supervisor = Supervisor(tmp_path, queue, 0, {})
            supervisor.start()
            _wait(lambda: queue.in_state("queued"))
            assert [job.run for job in queue.in_state("queued")] == ["other"]
            assert {job.run: job.process for job in queue.in_state("running")} == dict.fromkeys(
                ("same", "unnoted"), process.pid
            )
        finally:
            process.kill()
        # Dead without a word: both wait to be started again.
        _wait(lambda: len(queue.in_state("queued")) == 3)
        supervisor.stop()


def test_a_job_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    queue = Queue(Store(tmp_path))
    (tmp_path / "mortal").mkdir()
    job = queue.put("mortal", "run", ["run", "mortal"], "me")
    for _ in range(MOST_ATTEMPTS - 1):
        queue.begin(job)
        queue.put_back(job)
    queue.begin(job)
    supervisor = Supervisor(tmp_path, queue, 0, {})
    supervisor.start()
    _wait(lambda: not queue.in_state("running"))
    supervisor.stop()
    found = queue.latest("mortal")
    assert found is not None
    assert (found.state, found.message) == ("failed", "It died 5 times, the last time with the service.")


def test_a_run_has_one_open_job_and_the_queue_keeps_order(tmp_path: Path) -> None:
    queue = Queue(Store(tmp_path))
    first = queue.put("a", "run", ["run", "a"], "me")
    second = queue.put("b", "run", ["run", "b"], "me")
    with pytest.raises(Problem, match="a: run is queued"):
        queue.put("a", "release", ["release", "build", "a"], "me")
    assert [job.run for job in queue.in_state("queued")] == ["a", "b"]
    assert queue.place(second) == 1
    queue.cancel(first)
    assert [job.state for job in (queue.latest("a"), queue.latest("b")) if job] == ["cancelled", "queued"]
    assert queue.begin(second)
    assert not queue.begin(second)
    # Another connection, as after a restart, finds the same.
    again = Queue(Store(tmp_path)).latest("b")
    assert again is not None
    assert (again.state, again.attempts, again.arguments) == ("running", 1, ("run", "b"))


def test_progress_is_written_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.progress import FILE_VARIABLE, meter

    file = tmp_path / "progress.json"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with meter("judge", 4, "rows") as shown:
        assert json.loads(file.read_text())["done"] == 0
        shown.advance(3, 0.5)
    progress = json.loads(file.read_text())
    assert {key: progress[key] for key in ("stage", "done", "total", "unit", "cost")} == {
        "stage": "judge", "done": 3, "total": 4, "unit": "rows", "cost": 0.5,
    }  # fmt: skip
    assert progress["left_s"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def _job_of(service: Service) -> dict[str, Any]:
    store = Store(service.runs)
    row = store.one("SELECT * FROM jobs WHERE run = 'long'")
    store.close()
    assert row is not None
    assert row["process"] is None or psutil.pid_exists(row["process"])
    return row


def _answers(service: Service) -> int:
    ledger = Ledger(service.runs / "long" / "ledger.sqlite")
    try:
        return ledger.totals().answers
    finally:
        ledger.close()


def _wait(true: Any) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
