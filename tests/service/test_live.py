"""What is shown of a run while it changes: its last state comes to everybody, at whatever moment they looked."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

from pipelines.runs import RunFolder, write_json
from service.http.shapes import RunState
from service.jobs.queue import Job, Queue
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

    class EndsMeanwhile(Queue):
        """A queue that is asked between the manifest and what the release lacks."""

        def latest_of_each(self, run_name: str) -> list[Job]:
            if run.manifest() != ended:
                write_json(run.path / "manifest.json", ended)
            return super().latest_of_each(run_name)

    reader = RunReader(tmp_path, EndsMeanwhile(Store(tmp_path)))
    assert reader.look("small").state == "new"
    assert reader.look("small").state_words == "waits for review"


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
