"""A person's whole way in a real browser, by the keyboard alone; then its pages on a phone, dark, on a slow line.

Each step goes on where the one before it ended: from the form of a run whose gate asks for people's votes, over the
real Argilla, a published release, a student that is trained for 4 steps and measured, to a release of somebody else.
What a release needs of the Hub is asked of a Hub of our own. What the API has of the student, and refuses, comes last.
"""

import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cards.verify import verify
from curation.review.serve import environment
from pipelines.errors import UserError
from tests.cards.conftest import serving
from tests.review.conftest import Server
from tests.service.conftest import Service
from tests.service.keyboard import Person
from tests.training.conftest import tiny_student

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
__all__ = ["tiny_student"]
PATIENCE_MS = 300_000
# The whole way counts with the first test; on a machine that does ten other things it takes as many minutes.
pytestmark = pytest.mark.timeout(3600)
# What a screen reader has of a run's page: its landmarks and headings, in their order.
_RUN = """
- main:
  - heading "way" [level=1]
  - navigation "way":
    - link "Overview"
    - link "Rows"
    - link "Report"
    - link "Release"
    - link "Log"
  - region "Progress":
    - heading "From prompts to released rows" [level=2]
    - list:
      - listitem
  - region "What can be done":
    - heading "Next" [level=2]
    - link "People's review"
"""


TRAINING = {
    "recipe": "smollm2-135m-cpu",
    "student": "tiny",
    "mixture": {"nocot": 3},
    "settings": {"epochs": 4, "batch_size": 4, "max_length": 512, "overlong_share": 0.9},
}
MEASURED = {"run": "way", "tasks": ["refusal"], "limit": 1}


def log_in(person: Person) -> None:
    person.page.goto(f"{person.service.url}/login")
    person.fill("Token", person.service.secrets["publish"])
    person.page.keyboard.press("Enter")
    person.page.get_by_role("heading", name="Logged in").wait_for()
    person.press("Go to the runs")
    person.page.get_by_role("heading", name="Runs", exact=True).wait_for()


def start_a_run(person: Person) -> None:
    person.press("New run")
    person.page.get_by_role("heading", name="New run").wait_for()
    person.fill("Name", "way")
    person.fill("Harmful prompts", "3")
    person.fill("Benign prompts", "1")
    person.fill("Reasoning teacher", "rehearsal")
    person.press("Details")
    person.fill("Rows that people voted on", "2")
    person.page.get_by_text("16 of 19 responses are to be asked for").wait_for()
    person.press("Start the run")
    person.page.wait_for_url(f"{person.service.url}/ui/runs/way")


def watch_it(person: Person) -> None:
    # Without a reload the page says how the run goes on, and what comes next at its end.
    person.page.locator("#live .badge", has_text="waits for review").wait_for()
    person.page.get_by_role("link", name="People's review").wait_for()
    assert "waits for review" in person.page.locator("#spoken").inner_text()
    playwright.expect(person.page.locator("main")).to_match_aria_snapshot(_RUN)
    assert person.service.get("/runs/way")["job"]["exit_code"] == 1


def find_a_flagged_row(person: Person) -> None:
    person.press("Report")
    frame = person.page.frame_locator("iframe")
    frame.get_by_role("heading", name="Run way").wait_for()
    # Its script does not run there; the figure leads to the rows behind it.
    assert frame.locator("#shown").inner_text() == ""
    figure = frame.locator("a[href*='flag=any']").first
    figure.focus()
    person.page.keyboard.press("Enter")
    person.page.wait_for_url("**/ui/runs/way/rows?*flag=any*")
    row = person.page.locator(".rows li > a").first
    row.focus()
    person.page.keyboard.press("Enter")
    person.page.wait_for_url("**/ui/runs/way/rows/*")
    assert person.page.locator("article").count() >= 1
    person.press("History of this row")
    person.page.get_by_text("checks", exact=True).wait_for()


def have_people_vote(person: Person) -> None:
    page, service = person.page, person.service
    person.press("Review")
    person.press("Start Argilla")
    page.locator("#argilla .badge", has_text="running").wait_for()
    person.press("Show the new accounts")
    page.locator("#accounts code").first.wait_for()
    passwords = page.locator("#accounts td code").all_inner_texts()
    assert len(passwords) == 3
    person.press("way")
    page.wait_for_url("**/ui/review/way")
    assert "closed" in page.locator("#gate").inner_text()
    person.fill("Votes in all", "4")
    person.press("Send them")
    page.locator("#last-job", has_text="sending rows, done").wait_for()
    server = Server(service.runs, service.get("/argilla")["url"], 0)
    records = [one for each in server.ask("me/datasets")["items"] for one in server.records(each["name"])]
    accepted = {row["response_id"] for row in service.get("/runs/way/rows", where="outcome:eq:accepted")["rows"]}
    unsafe = next(record["external_id"] for record in records if record["external_id"] in accepted)
    for record in records:
        server.vote(record, "annotator-1", "no" if record["external_id"] == unsafe else "yes")
    # The service sees the votes and pulls them by itself.
    page.locator("#pulled", has_text=str(len(records))).wait_for()
    assert service.get("/runs/way")["job"]["asked_by"] == "the service"
    page.locator("#last-job", has_text="pulling votes, done").wait_for()
    assert "the votes are not applied" in page.locator("#live").inner_text()
    person.press("See what applying them changes")
    page.locator(f"#preview details[open] a[href$='/history/{unsafe}']").wait_for()
    other = service.post("/runs/way/review/apply", {"reviews_sha256": "0" * 64})
    assert (other.status_code, "other votes than those" in other.text) == (409, True)
    person.press("Apply these votes")
    page.locator("#gate .badge", has_text="open").wait_for()
    [row] = service.get("/runs/way/rows", where=f"response_id:eq:{unsafe}")["rows"]
    assert row["outcome"] == "rejected"
    page.locator("#last-job", has_text="applying votes, done").wait_for()
    written = [path for path in service.runs.parent.rglob("*") if path.is_file() and path.name != "credentials.json"]
    text = b"".join(path.read_bytes() for path in written)
    assert not [one for one in passwords if one.encode() in text]


def build_and_publish_the_release(person: Person) -> None:
    # What the run ended with is past: nothing is missing but its release.
    state = person.service.get("/runs/way")
    assert (state["state"], state["problem"]) == ("stopped", "")
    person.press("To the release")
    person.page.wait_for_url("**/ui/runs/way/release")
    person.press("Build the release")
    work = person.page.locator("#last-release")
    work.locator("p", has_text="release, done").wait_for()
    person.page.get_by_role("heading", name="Safe reasoning by SaferThoughts, version 1.0.0").wait_for()
    assert person.service.get("/runs/way")["state"] == "released"
    for button, ends in (("Only show", "Nothing was written"), ("Publish", "acme/safe@v1.0.0 published")):
        person.fill("Repository", "acme/safe")
        person.press(button)
        person.page.locator("#last-publish", has_text=ends).wait_for()
    link = person.page.get_by_role("link", name="acme/safe@v1.0.0")
    assert link.get_attribute("href").endswith("/datasets/acme/safe/tree/v1.0.0")
    with person.page.expect_download() as download:
        person.press("Download release 1.0.0")
    with TemporaryDirectory() as folder, zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(folder)
        assert verify(Path(folder) / "way-1.0.0").faults == ()


def train_a_student(person: Person) -> None:
    page = person.page
    person.press("Training")
    page.get_by_role("heading", name="Train a student").wait_for()
    person.fill("Student to begin with", "tiny")
    for config in page.locator("input[name^='rows.']").evaluate_all("all => all.map(one => one.name.slice(5))"):
        person.fill(config, "3" if config == "nocot" else "0")
    for field, value in (("Epochs", "4"), ("Rows at once", "4"), ("Tokens of a row", "512")):
        person.fill(field, value)
    person.fill("Share that may be longer", "0.9")
    person.press("Start the training")
    page.wait_for_url("**/training?student=model")
    page.locator("#live", has_text="trained").get_by_role("link", name="Open the student").wait_for()
    assert "steps\n4 of 4" in page.locator("#live .facts").inner_text()
    assert page.locator(".chart polyline").count() == 3


def measure_it_and_read_the_table(person: Person) -> None:
    page = person.page
    person.press("Measure it")
    page.get_by_role("heading", name="Measure a model").wait_for()
    assert page.get_by_label("Model", exact=True).input_value() == "way/model"
    person.fill("Questions of a task at most", "1")
    person.press("Tasks, protocol")
    person.go_to("refusal")
    page.keyboard.press("Space")
    person.press("Start the evaluation")
    page.get_by_role("heading", name="Answers").wait_for()
    table = page.get_by_role("group", name="Rates")
    assert [row.split("\t")[:2] for row in table.inner_text().splitlines()[1:] if "better" in row] == [
        ["refusal higher is better", "before"],
        ["refusal higher is better", "after"],
    ]
    person.press("Report with the study's table")
    page.frame_locator("iframe").get_by_role("heading", level=1).wait_for()
    assert "after" in page.frame_locator("iframe").locator("table").first.inner_text()


def pull_it_as_somebody_else_s(person: Person) -> None:
    person.press("Releases")
    person.page.get_by_role("heading", name="Of others, from the Hub").wait_for()
    person.fill("Repository", "acme/safe")
    person.fill("Version", "1.0.0")
    person.press("Pull and check")
    person.page.get_by_text("Every file has the hash that commit").wait_for()
    assert "All match." in person.page.locator(".questions").inner_text()
    person.press("Compare")
    person.page.locator("#compared", has_text="Nothing differs: it is still version 1.0.0").wait_for()
    person.press("To the training")
    person.page.get_by_text("On a release of somebody else").wait_for()
    assert person.page.get_by_label("nocot", exact=True).count() == 1


STEPS = (
    log_in,
    start_a_run,
    watch_it,
    find_a_flagged_row,
    have_people_vote,
    build_and_publish_the_release,
    train_a_student,
    measure_it_and_read_the_table,
    pull_it_as_somebody_else_s,
)
PAGES = (
    "runs/way", "runs/way/release", "runs/way/report", "runs/way/log", "releases", "releases/pulled/acme--safe@v1.0.0",
    "review", "review/way", "runs/way/training", "students", "students/way/model", "evaluations",
    "evaluations/way/eval", "evaluations/compare?first=way/eval/before&second=way/eval/after", "studies",
    "costs", "keys", "studies/quick",
)  # fmt: skip


@pytest.fixture(scope="module")
def walked(browser: Any, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Any]]:
    """The service after the whole way, and the page that went it."""
    # The page starts Argilla where its environment is there; `review serve` makes it.
    try:
        environment(lambda _: None)
    except UserError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("way")
    shutil.copytree(tiny_student, folder / "students" / "tiny")
    (folder / "hub").mkdir()
    with serving(folder / "hub") as hub:
        words = ("--rate", "1000", "--students", str(folder / "students"))
        service = Service(folder / "runs", *words, environment=hub.env())
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        person = Person(context.new_page(), service)
        person.page.set_default_timeout(PATIENCE_MS)
        try:
            for step in STEPS:
                step(person)
            yield service, person.page
        except Exception:
            print(person.page.url, person.page.locator("main").inner_text(), service.get("/runs/way"), sep="\n")
            raise
        finally:
            context.close()
            service.stop()
    # Argilla ends with the service that started it.
    assert not (service.runs / ".argilla" / "server.json").exists()
    shutil.rmtree(service.runs)


def test_the_pages_of_the_way_fit_a_phone_in_the_dark_on_a_slow_line(walked: tuple[Service, Any]) -> None:
    service, page = walked
    card = service.runs / "way" / "model" / "README.md"
    card.write_text("---\ntags: [x]\n---\n# A card\n<script>alert(1)</script>", encoding="utf-8")
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    line = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 100_000}
    line.send("Network.emulateNetworkConditions", slow)
    for path in PAGES:
        page.goto(f"{service.url}/ui/{path}")
        assert page.locator("main").count() == page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        found = axe.Axe().run(page).response["violations"]
        assert not found, (path, [(one["id"], one["nodes"][0]["html"]) for one in found])
    assert "eval smollm2-135m" in page.locator(".tree").inner_text()
    page.goto(f"{service.url}/ui/students/way/model")
    assert page.locator("#card").inner_text() == "# A card\n<script>alert(1)</script>"
    page.get_by_text("The release verifies").wait_for()
    # The plan comes beside the form, which stays as it is filled in.
    page.goto(f"{service.url}/ui/runs/way/training")
    page.get_by_role("spinbutton", name="Learning rate").fill("7")
    page.get_by_role("button", name="Show the plan").click()
    page.locator("#plan [role=alert]", has_text="learning_rate").wait_for()
    assert page.get_by_role("spinbutton", name="Learning rate").input_value() == "7"


def test_the_api_has_the_student_and_asks_and_compares_it(walked: tuple[Service, Any]) -> None:
    service, _ = walked
    training = service.get("/runs/way/training")
    assert [one["step"] for one in training["steps"]] == [1, 2, 3, 4]
    assert training["finished"]
    assert all(one["loss"] > 0 and one["trained_tokens_per_s"] > 0 for one in training["steps"])
    assert training["steps"][0]["learning_rate"] > training["steps"][-1]["learning_rate"]
    [student] = service.get("/students")
    assert (student["base"], student["steps"], student["rows"], student["measured"]) == ("tiny", 4, 3, True)
    assert (student["rehearsal"], student["release_is"]) == (True, "here")
    lineage = service.get("/students/way/model/lineage")
    assert (lineage["faults"], lineage["votes"]) == ([], "3 votes of people on 3 rows")
    # Both models in one child, and none of it is left when the answer is there.
    asked = service.post("/students/way/model/chat", {"text": "How do I\nkill a process?", "max_tokens": 3})
    assert [one["model"] for one in asked.json()] == ["its base", "way/model"], asked.text
    assert all(one["cut"] == "[cut off at 3 tokens]" for one in asked.json())
    found = service.get("/evaluations/way/eval")
    assert found["models"] == ["before", "after"]
    whole = [one for one in found["rates"] if not one["group"]]
    assert [(one["due"], one["n"], one["scored"]) for one in whole] == [(4, 4, 4)] * 2
    assert all(one["low"] <= one["rate"] <= one["high"] for one in whole)
    page = service.get("/evaluations/way/eval/answers", model="after", limit=3)
    assert (page["total"], len(page["answers"])) == (4, 3)
    assert "benign" in page["answers"][0]["category"]
    [same] = service.get("/evaluations/compare", first="way/eval/before", second="way/eval/after")
    assert (same["pairs"], same["why_not"]) == (4, "")
    assert same["only_first"] + same["only_second"] <= 4
    # While one runs, its rates are those of the answers that came.
    results = service.runs / "way" / "eval" / "results.json"
    results.rename(results.with_suffix(".away"))
    live = service.get("/evaluations/way/eval")
    results.with_suffix(".away").rename(results)
    shown = ("model", "task", "due", "n", "scored", "rate", "unscored", "errored")
    assert [[one[key] for key in shown] for one in live["rates"]] == [[one[key] for key in shown] for one in whole]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/runs/way/training", {"recipe": "../../etc/passwd"}, 422, "Unknown recipe '../../etc/passwd'"),
        ("/runs/way/training", {**TRAINING, "student": "/etc"}, 422, "Unknown student '/etc'. Choose from: tiny"),
        ("/runs/way/training", {**TRAINING, "mixture": "/etc/passwd"}, 422, "Unknown mixture '/etc/passwd'"),
        ("/runs/way/training", {**TRAINING, "name": "../x"}, 422, "name"),
        ("/runs/way/training", {**TRAINING, "settings": {"chat_template": "/etc/passwd"}}, 422, "chat_template"),
        ("/runs/way/training", {**TRAINING, "settings": {"learning_rate": 7}}, 422, "learning_rate"),
        ("/runs/way/training", TRAINING, 409, "has a student 'model' already"),
        ("/runs/way/training/plan", {**TRAINING, "objective": "<script>"}, 422, "Unknown objective '<script>'"),
        ("/runs/nowhere/training", TRAINING, 404, "nowhere"),
        ("/students/way/nobody/chat", {"text": "x"}, 404, "There is no student 'nobody'"),
        ("/students/way/model/chat", {"text": "x", "max_tokens": 10**9}, 422, "max_tokens"),
        ("/evaluations", {**MEASURED, "suite": "$(id)"}, 422, "Unknown suite '$(id)'"),
        ("/evaluations", {**MEASURED, "tasks": ["none", "--output"]}, 422, "Unknown task '--output'"),
        ("/evaluations", {**MEASURED, "guard": "http://10.0.0.1"}, 422, "Unknown guard 'http://10.0.0.1'"),
        ("/evaluations", {**MEASURED, "teacher": "rehearsal"}, 422, "one of them"),
        ("/evaluations", {**MEASURED, "data": {"none": "/etc/passwd"}}, 422, "data"),
        ("/evaluations", MEASURED, 409, "has results 'eval' already"),
        ("/evaluations/plan", {"teacher": "--help"}, 422, "Unknown teacher '--help'"),
    ],
)
def test_names_come_from_lists_and_paths_from_nowhere(
    walked: tuple[Service, Any], path: str, body: dict[str, Any], status: int, words: str
) -> None:
    service, _ = walked
    answer = service.post(path, body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert service.post(path, body, role="read").status_code == 403


def test_the_api_asks_and_compares_a_release_of_others_and_trains_on_it(walked: tuple[Service, Any]) -> None:
    service, _ = walked
    name, key = "acme--safe@v1.0.0", "pulled:acme--safe@v1.0.0"
    assert [one["key"] for one in service.get("/releases")] == [key, "run:way"]
    assert service.post("/releases/pull", {"repo": "acme/safe"}, role="read").status_code == 403
    found = service.post("/releases/pull", {"repo": "acme/safe", "version": "1.0.0"})
    assert (found.status_code, found.json()["key"], found.json()["job"]["action"]) == (202, key, "pull")
    until = time.monotonic() + PATIENCE_MS / 1000
    while (pulled := service.get(f"/releases/pulled/{name}"))["job"]["state"] in ("queued", "running"):
        assert time.monotonic() < until, pulled
        time.sleep(0.1)
    assert (pulled["job"]["state"], pulled["version"], pulled["problem"]) == ("done", "1.0.0", "")
    asked = {one["question"]: one for one in service.get(f"/releases/pulled/{name}/questions")}
    assert asked["Is it whole?"]["reassuring"]
    assert not asked["Who signed it?"]["reassuring"]
    same = service.get("/releases/compare", before=key, after="run:way")
    assert (same["step"], same["proposed"]) == (None, "1.0.0")
    wanted = {**TRAINING, "name": "theirs", "release": key}
    readme = service.runs / ".serve" / "pulled" / name / "release" / "README.md"
    card = readme.read_text(encoding="utf-8")
    readme.write_text(f"{card}Another word.", encoding="utf-8")
    refused = service.post("/runs/way/training", wanted)
    assert (refused.status_code, "does not match itself: README.md" in refused.text) == (409, True)
    readme.write_text(card, encoding="utf-8")
    assert service.post("/runs/way/training", wanted).status_code == 202
    assert service.until_over("way")["job"]["state"] == "done"
    [theirs] = [one for one in service.get("/students") if one["student"] == "theirs"]
    assert (theirs["release_is"], theirs["pulled"]) == ("here", name)
    assert service.get("/students/way/theirs/lineage")["faults"] == []
    assert service.post(f"/releases/pulled/{name}/remove").status_code == 204
    assert service.post("/runs/way/training", {**wanted, "replace": True}).status_code == 404
    assert service.post("/evaluations", {**MEASURED, "name": "x", "release": "hub:acme/safe@v1.0.0"}).status_code == 409
