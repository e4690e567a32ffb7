"""What is shown of a run while it changes: its last state comes to everybody, at whatever moment they looked."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs import RunFolder, write_json
from pipelines.teachers.ledger import Totals
from service.app_state import AppState, ServeSettings, opened
from service.http.shapes import ErrorLine, RunState
from service.jobs.queue import Job, Queue
from service.page.screens import releases
from service.run import api
from service.run.run_reader import Broadcaster, RunReader
from service.store import Store
from tests.review.test_agree import gated
from tests.service.conftest import Service


def test_a_stage_that_ends_while_a_run_is_read_is_seen_by_the_next_look(service: Service, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "small")
    shutil.copytree(service.runs / "small", run.path, ignore=shutil.ignore_patterns("release"))
    gated(run, reviewed=2)
    ended = run.manifest()
    del ended["stages"]["release"]
    before = {**ended, "stages": {name: entry for name, entry in ended["stages"].items() if name != "check"}}
    write_json(run.path / "manifest.json", before)

    class EndsMeanwhile(RunReader):
        """The ledger is read between the manifest and what the release lacks."""

        def _totals(self, run: RunFolder) -> tuple[Totals, list[ErrorLine]]:
            write_json(run.path / "manifest.json", ended)
            return super()._totals(run)

    reader = EndsMeanwhile(tmp_path, Queue(Store(tmp_path)))
    assert reader.look("small").state == "new"
    assert reader.look("small").state_words == "waits for review"


def test_a_job_that_is_over_is_shown_with_what_it_left(service: Service, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "small")
    shutil.copytree(service.runs / "small", run.path)
    ended = run.manifest()
    before = {**ended, "stages": {"prompts": ended["stages"]["prompts"]}}
    write_json(run.path / "manifest.json", before)

    class EndsMeanwhile(Queue):
        """The job ends at the moment in which it is looked at."""

        def latest_of_each(self, run_name: str) -> list[Job]:
            write_json(run.path / "manifest.json", ended)
            for job in self.in_state("queued"):
                self.end(job, "done", 0, "")
            return super().latest_of_each(run_name)

    queue = EndsMeanwhile(Store(tmp_path))
    reader = RunReader(tmp_path, queue)
    reader.at(run)
    write_json(run.path / "manifest.json", before)
    queue.put("small", "run", ("run", "small"), "test")
    state = reader.at(run)
    assert (state.state, list(state.stages)) == ("released", list(ended["stages"]))


def test_a_report_made_of_a_run_that_changed_meanwhile_is_made_again(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, source = tmp_path / "report.html", tmp_path / "manifest.json"
    source.write_text("first")
    made: list[str] = []

    def draw(*_: object) -> str:
        page.write_text(source.read_text())
        made.append(page.read_text())
        if made == ["first"]:
            source.write_text("second")
            later = source.stat().st_mtime_ns + 10**9
            os.utime(source, ns=(later, later))
            os.utime(page, ns=(later + 1, later + 1))
        return ""

    monkeypatch.setattr("service.jobs.commands.run", draw)
    for _ in range(3):
        api.make_report(page, source, tmp_path)
    assert made == ["first", "second"]


def test_a_release_page_that_saw_a_job_end_asks_again(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(service.runs / "small", tmp_path / "small")
    state = opened(ServeSettings(tmp_path), {})
    job = state.queue.put("small", "release", (), "test")
    look = AppState.run_state

    def ends_after(self: AppState, name: str) -> RunState:
        found = look(self, name)
        state.queue.end(job, "done", 0, "")
        return found

    monkeypatch.setattr(AppState, "run_state", ends_after)
    first, second = (releases._release(state, "small", card=False) for _ in range(2))
    assert (first["run"].state, second["run"].state) == ("queued", "released")
    assert first["mark"] != second["mark"]
    state.store.close()


def test_a_listener_that_looked_before_the_others_heard_hears_too(service: Service) -> None:
    state = RunState.model_validate(service.get("/runs/small"))
    older, newer = (state.model_copy(update={"answers": count}) for count in (1, 2))

    async def hear(broadcaster: Broadcaster, first: RunState, count: int) -> list[int]:
        heard: list[int] = []
        events: Any = broadcaster.events("small", first)
        async for text in events:
            if "event: state" in text:
                heard.append(RunState.model_validate_json(text.split("data: ")[1]).answers)
            if len(heard) == count:
                break
        await events.aclose()
        return heard

    async def both() -> list[list[int]]:
        broadcaster = Broadcaster(lambda name: newer)
        working = asyncio.create_task(broadcaster.work())
        async with asyncio.timeout(300):
            # The first holds its place until the second, which looked at the run earlier, has heard.
            there = broadcaster.events("small", newer)
            await anext(there)
            late = await hear(broadcaster, older, 2)
        await there.aclose()  # type: ignore[attr-defined]
        working.cancel()
        return [late]

    assert asyncio.run(both()) == [[1, 2]]
