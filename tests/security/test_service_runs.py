"""Runs that are broken or hostile, and side jobs that fail: other runs are listed, shown and heard of as before."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.jobs.queue import Queue
from service.store import Store
from tests.service.conftest import Service

HIDDEN = "\u202e"


def rewritten(file: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        path = run / file
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return act


def without(name: str) -> Callable[[dict[str, object]], object]:
    return lambda found: {key: value for key, value in found.items() if key != name}


def with_value(name: str, value: object) -> Callable[[dict[str, object]], object]:
    return lambda found: {**found, name: value}


def filled(file: str, content: bytes) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        path = run / file
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    return act


def linked_nowhere(run: Path) -> None:
    (run / "manifest.json").unlink()
    (run / "manifest.json").symlink_to("nowhere")


def a_folder(run: Path) -> None:
    (run / "manifest.json").unlink()
    (run / "manifest.json").mkdir()


BROKEN: dict[str, Callable[[Path], None]] = {
    "garbage-ledger": filled("ledger.sqlite", b"garbage" * 1000),
    "empty-manifest": filled("manifest.json", b""),
    "garbage-manifest": filled("manifest.json", b"\xff\xfe{"),
    "deep-manifest": filled("manifest.json", b"[" * 100_000),
    "no-stages": rewritten("manifest.json", without("stages")),
    "stages-a-list": rewritten("manifest.json", with_value("stages", [1, 2])),
    "stages-of-nothing": rewritten("manifest.json", with_value("stages", {"prompts": None})),
    "odd-counts": rewritten("manifest.json", with_value("stages", {"prompts": {"finished": "x", "counts": "many"}})),
    "another-format": rewritten("manifest.json", with_value("format", 99)),
    "no-day": rewritten("manifest.json", without("created")),
    "garbage-run-yaml": filled("run.yaml", b"\x00\xff: ["),
    "code-in-run-yaml": filled("run.yaml", b"!!python/object/apply:os.system [echo]"),
    "list-run-yaml": filled("run.yaml", b"- 1\n- 2\n"),
    "manifest-linked-nowhere": linked_nowhere,
    "manifest-a-folder": a_folder,
}


@pytest.fixture(scope="module")
def beset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the sound run `sound`, and beside it a copy of that for each way to break one. No job starts."""
    running = Service(tmp_path_factory.mktemp("beset") / "runs", "--jobs", "0", "--rate", "100000")
    config = {"prompts": {"harmful": 2, "benign": 1}, "roles": {"reasoning": "rehearsal"}}
    assert running.post("/runs", {"name": "sound", "config": config}).status_code == 202
    for name, spoil in BROKEN.items():
        shutil.copytree(running.runs / "sound", running.runs / name)
        with sqlite3.connect(running.runs / name / "ledger.sqlite"):
            pass
        spoil(running.runs / name)
    yield running
    running.stop()


def page(service: Service, path: str) -> str:
    with httpx.Client(base_url=service.url, timeout=300) as browser:
        browser.post("/login", data={"token": service.secrets["publish"]}, headers={"origin": service.url})
        answer = browser.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text


def test_broken_runs_are_listed_as_broken_and_the_others_as_ever(beset: Service) -> None:
    states = {run["name"]: run for run in beset.get("/runs")}
    assert set(states) == {"sound", *BROKEN}
    assert states["sound"]["state"] == "queued"
    assert {name: states[name]["state"] for name in BROKEN} == dict.fromkeys(BROKEN, "broken")
    for name in BROKEN:
        assert states[name]["problem"], name
        assert "\n" not in states[name]["problem"]
        assert beset.get(f"/runs/{name}")["problem"] == states[name]["problem"]
    listed = page(beset, "/") + page(beset, "/?offset=12")
    assert listed.count('class="badge broken"') == len(BROKEN)
    assert "Mend the file that this names" in page(beset, "/ui/runs/garbage-ledger")
    assert "garbage-ledger is not counted" in page(beset, "/ui/costs")
    assert "list-run-yaml is not counted" in page(beset, "/ui/costs")
    assert "Judges <a" in page(beset, "/ui/judges")
    assert "No run to review yet" in page(beset, "/ui/review")
    assert "Traceback" not in (beset.runs.parent / "service.txt").read_text()


def test_a_run_that_breaks_while_it_is_watched_ends_nobodys_events(beset: Service) -> None:
    shutil.copytree(beset.runs / "sound", beset.runs / "breaking", dirs_exist_ok=True)

    def heard(lines: Iterator[str]) -> dict[str, object]:
        return dict(json.loads(next(line for line in lines if line.startswith("data: "))[6:]))

    with (
        beset.client("read") as client,
        client.stream("GET", "/runs/breaking/events") as one,
        client.stream("GET", "/runs/sound/events") as two,
    ):
        first, second = one.iter_lines(), two.iter_lines()
        assert heard(first)["state"] == "new"
        assert heard(second)["state"] == "queued"
        (beset.runs / "breaking" / "manifest.json").write_bytes(b"\xff")
        assert heard(first)["state"] == "broken"
        store = Store(beset.runs)
        store.change("UPDATE jobs SET message = 'still heard' WHERE run = 'sound'")
        store.close()
        assert "still heard" in str(heard(second)["job"])
    shutil.rmtree(beset.runs / "breaking")


def test_a_truncated_table_is_told_and_spoils_no_estimate(beset: Service) -> None:
    run = beset.runs / "truncated"
    shutil.copytree(beset.runs / "sound", run)
    (run / "responses.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    try:
        with beset.client("read") as client:
            answer = client.get("/runs/truncated/rows")
            assert (answer.status_code, "responses.parquet" in answer.json()["detail"]) == (422, True), answer.text
            wished = {"prompts": {"harmful": 1, "benign": 0}, "roles": {"reasoning": "rehearsal"}}
            assert client.post("/estimate", json=wished).status_code == 200
        assert beset.get("/runs/truncated")["state"] == "new"
    finally:
        shutil.rmtree(run)


@pytest.mark.parametrize(
    "name", ["a" * 65, "a" * 300, "a" * 5000, "a%00b", "%ED%A0%80", "%2e%2e", ".serve", "a%0D%0Ab"]
)
def test_a_name_that_no_run_can_have_is_not_found(beset: Service, name: str) -> None:
    with beset.client("read") as client:
        for path in ("", "/rows", "/log", "/report", "/release.zip", "/events"):
            answer = client.get(f"{beset.url}/runs/{name}{path}")
            assert answer.status_code == 404, (path, answer.text)
            assert len(answer.text) < 1000


@pytest.mark.parametrize(
    "version", ["1.0.0\r\nX-Injected: yes", "1.0.0\n", "../1.0.0", "\u202e1.0.0", "\ud800", ["1"], ""]
)
def test_a_release_with_an_odd_version_is_not_sent(beset: Service, version: object) -> None:
    release = beset.runs / "sound" / "release"
    release.mkdir(exist_ok=True)
    (release / "lineage.json").write_text(json.dumps({"version": version}))
    try:
        with beset.client("read") as client:
            answer = client.get("/runs/sound/release.zip")
        assert (answer.status_code, "x-injected" in answer.headers) == (409, False), answer.text
        assert "names no version such as 1.0.0" in answer.json()["detail"]
        assert HIDDEN not in page(beset, "/ui/runs/sound") + page(beset, "/")
    finally:
        shutil.rmtree(release)


@pytest.mark.parametrize("place", ["release", "release/README.md", "release/data/train.parquet"])
def test_a_release_with_a_link_is_not_sent(beset: Service, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "lineage.json").write_text('{"version": "1.0.0"}')
    release = beset.runs / "sound" / "release"
    try:
        if place == "release":
            release.symlink_to(tmp_path / "secret")
        else:
            (release / "data").mkdir(parents=True)
            (release / "lineage.json").write_text('{"version": "1.0.0"}')
            (beset.runs / "sound" / place).symlink_to(tmp_path / "secret" / "lineage.json")
        with beset.client("read") as client:
            answer = client.get("/runs/sound/release.zip")
        assert answer.status_code == 409, answer.text
        assert "is a link, and is not followed" in answer.json()["detail"]
    finally:
        release.unlink() if release.is_symlink() else shutil.rmtree(release)


def test_links_in_place_of_report_and_log_are_not_followed(beset: Service, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for name in ("report.html", "service.log"):
        (beset.runs / "sound" / name).symlink_to(tmp_path / "secret")
    try:
        os.utime(tmp_path / "secret", (2**31 - 10, 2**31 - 10))
        with beset.client("read") as client:
            assert client.get("/runs/sound/report").status_code == 409
            assert client.get("/runs/sound/log").text == ""
    finally:
        for name in ("report.html", "service.log"):
            (beset.runs / "sound" / name).unlink()


def test_a_failed_side_job_leaves_the_run_alone_and_is_repeated_by_one_click(beset: Service) -> None:
    shutil.copytree(beset.runs / "sound", beset.runs / "sided")
    (beset.runs / "sided" / "release").mkdir()
    (beset.runs / "sided" / "release" / "lineage.json").write_text('{"version": "1.0.0"}')
    store = Store(beset.runs)
    queue = Queue(store)
    queue.end(queue.put("sided", "run", ["run", "sided"], "me"), "done", 0, "Done.")
    asked = ["publish", "sided", "--repo", "me/x", "--dry-run"]
    failed = queue.put("sided", "publish", asked, "me")
    queue.end(failed, "failed", 2, f"No such repository {HIDDEN}me/x.", "run")
    unstarted = queue.put("sided", "review", ["review", "push", "sided"], "me")
    queue.end(unstarted, "failed", None, "It could not be started: no memory.", "service")
    state = beset.get("/runs/sided")
    assert (state["state"], state["problem"]) == ("released", "")
    sides = {job["action"]: job for job in state["side_jobs"]}
    assert (sides["publish"]["message"], sides["publish"]["fault"]) == ("No such repository [U+202E]me/x.", "run")
    assert sides["review"]["fault"] == "service"
    shown = page(beset, "/ui/runs/sided")
    assert "No such repository [U+202E]me/x." in shown
    assert "The service failed, not the run: It could not be started" in shown
    assert HIDDEN not in shown
    assert 'id="repeat-publish"' in shown
    # Who may not publish may not repeat it either.
    assert beset.post(f"/runs/sided/jobs/{failed.id}/repeat").status_code == 403
    with httpx.Client(base_url=beset.url, timeout=300) as browser:
        browser.post("/login", data={"token": beset.secrets["publish"]}, headers={"origin": beset.url})
        key = shown_key(browser.get("/ui/runs/sided").text)
        form = {"key": key, "job": str(failed.id)}
        answer = browser.post("/ui/runs/sided/repeat", data=form, headers={"origin": beset.url})
        assert answer.status_code == 303, answer.text
    again = queue.latest("sided")
    assert again is not None
    assert (again.state, again.action, list(again.arguments)) == ("queued", "publish", asked)
    for wrong in ("0", "9" * 30, "x", "", "1; DROP TABLE jobs"):
        assert beset.post(f"/runs/sided/jobs/{wrong}/repeat", role="publish").status_code in (404, 405, 422), wrong
    store.close()


def shown_key(text: str) -> str:
    return text.partition('name="key" value="')[2].partition('"')[0]


def test_the_form_says_what_judges_look_for_and_warns_where_nobody_looks_for_unsafe(beset: Service) -> None:
    form = page(beset, "/ui/new")
    assert "looks for whether a response is unsafe as a whole" in form
    assert "looks for the five patterns, and over-refusal" in form
    wished = {"prompts": {"harmful": 1, "benign": 0}, "roles": {"reasoning": "rehearsal"}}
    found = {
        judge: beset.post("/estimate", {**wished, "judging": {"judges": [judge]}}, "read").json()["warnings"]
        for judge in ("rules", "rehearsal-shield")
    }
    assert [len(warnings) for warnings in found.values()] == [1, 0]
    assert "Nobody looks for unsafe responses" in found["rules"][0]
