"""A review from the page alone: the real Argilla started, accounts shown once, votes pulled, the gate, apply, stop."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.review.conftest import Server
from tests.service.conftest import Service
from tests.service.test_front import Person

PATIENCE_S = 300


@pytest.fixture
def running(checked_once: Path, tmp_path: Path) -> Iterator[Service]:
    runs = tmp_path / "runs"
    run = Path(shutil.copytree(checked_once, runs / "small"))
    config = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(config.replace("reviewed: null", "reviewed: 5"))
    assert config != (run / "run.yaml").read_text()
    service = Service(runs, "--rate", "1000")
    yield service
    service.stop()
    # Argilla ends with the service that started it.
    assert not (runs / ".argilla" / "server.json").exists()


def until(fits: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := fits()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


def over(service: Service, action: str) -> dict[str, Any]:
    def done() -> Any:
        job = service.get("/runs/small")["job"]
        return job if job and job["action"] == action and job["state"] not in ("queued", "running") else None

    found: dict[str, Any] = until(done, action)
    assert found["state"] == "done", found
    return found


def press(person: Person, do: str, **fields: str) -> None:
    """A button, once no pull of the service's own is under way."""
    until(lambda: person.post("/ui/review/small", do=do, **fields).status_code == 303, do)


def test_a_review_from_start_to_apply(running: Service) -> None:
    person = Person(running, "publish")
    assert person.post("/ui/argilla", do="start", people="0").status_code == 409
    assert person.post("/ui/argilla", do="start", people="2").status_code == 303
    until(lambda: running.get("/argilla")["state"] == "running", "Argilla")
    assert "Argilla: running" in person.post("/ui/argilla", do="start", people="2").text
    shown = person.post("/ui/argilla", do="accounts").text
    passwords = re.findall(r"<td><code>([^<]+)</code></td></tr>", shown)
    assert len(passwords) == 3
    later = person.post("/ui/argilla", do="accounts").text + person.get("/ui/review")
    assert "There are none that were not shown before" in later
    refused = person.post("/ui/review/small", do="push", votes="5", rows="5").text
    assert "votes chooses the rows itself" in refused
    assert person.post("/ui/review/small", do="pull").status_code == 422  # nothing was sent
    assert person.post("/ui/review/small", do="push", rows="8", min_votes="1").status_code == 303
    over(running, "review")
    server = Server(running.runs, running.get("/argilla")["url"], 0)
    datasets = server.ask("me/datasets")["items"]
    records = [one for each in datasets for one in server.records(each["name"])]
    accepted = {row["response_id"] for row in running.get("/runs/small/rows", where="outcome:eq:accepted")["rows"]}
    unsafe = next(record["external_id"] for record in records if record["external_id"] in accepted)
    for record in records:
        for one in ("annotator-1", "annotator-2"):
            server.vote(record, one, "no" if record["external_id"] == unsafe else "yes")
    # Nobody asks for this pull: the service sees the votes. It may have seen them while they were given.
    assert over(running, "votes")["asked_by"] == "the service"
    press(person, "pull")
    over(running, "votes")
    state = running.get("/runs/small/review")
    assert state["votes"] == sum(state["seen"]["people"].values()) == 2 * len(records)
    assert state["missing"] == ["the votes are not applied (saferthoughts review apply small)"]
    live = person.get("/ui/review/small/live")
    assert "annotator-1" in live
    assert "closed" in live
    preview = person.post("/ui/review/small", do="preview").text
    assert f"/ui/runs/small/history/{unsafe}" in preview.partition("Leave the accepted rows")[2]
    assert running.get("/runs/small/review")["applied"] is False
    votes = preview.partition('name="votes" value="')[2].partition('"')[0]
    assert "other votes than those" in person.post("/ui/review/small", do="apply", votes="0" * 64).text
    press(person, "apply", votes=votes)
    over(running, "apply")
    rows = running.get("/runs/small/rows", where=f"response_id:eq:{unsafe}")["rows"]
    assert [row["outcome"] for row in rows] == ["rejected"]
    assert "open" in person.get("/ui/review/small").partition('id="gate"')[2][:80]
    written = [path for path in running.runs.parent.rglob("*") if path.is_file() and path.name != "credentials.json"]
    text = b"".join(path.read_bytes() for path in written) + later.encode()
    assert not [one for one in passwords if one.encode() in text]
    person.client.close()
