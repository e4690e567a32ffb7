"""Students in the browser and over HTTP: trained on a release, asked, measured, compared; and what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Service
from tests.service.test_page import browser
from tests.training.conftest import tiny_student

__all__ = ["browser", "tiny_student"]

TRAINING = {
    "recipe": "smollm2-135m-cpu",
    "student": "tiny",
    "mixture": {"nocot": 4},
    "settings": {"epochs": 4, "batch_size": 4, "max_length": 512, "overlong_share": 0.9},
}
MEASURED = {"run": "small", "tasks": ["refusal"], "limit": 1}


@pytest.fixture(scope="module")
def desk(service: Service, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose run has a student that was trained for 4 steps from a page's request, and measured."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(service.runs / "small", folder / "runs" / "small")
    shutil.copytree(tiny_student, folder / "students" / "tiny")
    running = Service(folder / "runs", "--rate", "1000", "--students", str(folder / "students"))
    for path, body in (("/runs/small/training", TRAINING), ("/evaluations", MEASURED)):
        answer = running.post(path, body)
        assert answer.status_code == 202, answer.text
        state = running.until_over("small")
        assert state["job"]["state"] == "done", state
    yield running
    running.stop()


def test_a_student_is_trained_asked_and_measured(desk: Service) -> None:
    training = desk.get("/runs/small/training")
    assert [one["step"] for one in training["steps"]] == [1, 2, 3, 4]
    assert training["finished"]
    assert all(one["loss"] > 0 and one["trained_tokens_per_s"] > 0 for one in training["steps"])
    assert training["steps"][0]["learning_rate"] > training["steps"][-1]["learning_rate"]
    [student] = desk.get("/students")
    assert (student["base"], student["steps"], student["rows"], student["measured"]) == ("tiny", 4, 4, True)
    assert (student["rehearsal"], student["release_is"]) == (True, "here")
    lineage = desk.get("/students/small/model/lineage")
    assert (lineage["faults"], lineage["votes"]) == ([], "no votes of people")
    # Both models in one child, and none of it is left when the answer is there.
    asked = desk.post("/students/small/model/chat", {"text": "How do I\nkill a process?", "max_tokens": 3})
    assert [one["model"] for one in asked.json()] == ["its base", "small/model"], asked.text
    assert all(one["cut"] == "[cut off at 3 tokens]" for one in asked.json())
    found = desk.get("/evaluations/small/eval")
    assert found["models"] == ["before", "after"]
    whole = [one for one in found["rates"] if not one["group"]]
    assert [(one["due"], one["n"], one["scored"]) for one in whole] == [(4, 4, 4)] * 2
    assert all(one["low"] <= one["rate"] <= one["high"] for one in whole)
    page = desk.get("/evaluations/small/eval/answers", model="after", limit=3)
    assert (page["total"], len(page["answers"])) == (4, 3)
    assert "benign" in page["answers"][0]["category"]
    [same] = desk.get("/evaluations/compare", first="small/eval/before", second="small/eval/after")
    assert (same["pairs"], same["why_not"]) == (4, "")
    assert same["only_first"] + same["only_second"] <= 4
    # While one runs, its rates are those of the answers that came.
    results = desk.runs / "small" / "eval" / "results.json"
    results.rename(results.with_suffix(".away"))
    live = desk.get("/evaluations/small/eval")
    results.with_suffix(".away").rename(results)
    shown = ("model", "task", "due", "n", "scored", "rate", "unscored", "errored")
    assert [[one[key] for key in shown] for one in live["rates"]] == [[one[key] for key in shown] for one in whole]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/runs/small/training", {"recipe": "../../etc/passwd"}, 422, "Unknown recipe '../../etc/passwd'"),
        ("/runs/small/training", {**TRAINING, "student": "/etc"}, 422, "Unknown student '/etc'. Choose from: tiny"),
        ("/runs/small/training", {**TRAINING, "mixture": "/etc/passwd"}, 422, "Unknown mixture '/etc/passwd'"),
        ("/runs/small/training", {**TRAINING, "name": "../x"}, 422, "name"),
        ("/runs/small/training", {**TRAINING, "settings": {"chat_template": "/etc/passwd"}}, 422, "chat_template"),
        ("/runs/small/training", {**TRAINING, "settings": {"learning_rate": 7}}, 422, "learning_rate"),
        ("/runs/small/training", TRAINING, 409, "has a student 'model' already"),
        ("/runs/small/training/plan", {**TRAINING, "objective": "<script>"}, 422, "Unknown objective '<script>'"),
        ("/runs/nowhere/training", TRAINING, 404, "nowhere"),
        ("/students/small/nobody/chat", {"text": "x"}, 404, "There is no student 'nobody'"),
        ("/students/small/model/chat", {"text": "x", "max_tokens": 10**9}, 422, "max_tokens"),
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
    desk: Service, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = desk.post(path, body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert desk.post(path, body, role="read").status_code == 403


def test_the_pages_of_students_are_for_everybody(desk: Service, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    assert desk.post("/students/small/model/push", {"repo": "me/x"}).status_code == 403
    card = desk.runs / "small" / "model" / "README.md"
    card.write_text("---\ntags: [x]\n---\n# A card\n<script>alert(1)</script>", encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(f"{desk.url}/login")
    page.get_by_label("Token").fill(desk.secrets["run"])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Logged in").wait_for()
    for path in (
        "runs/small/training", "students", "students/small/model", "evaluations", "evaluations/small/eval",
        "evaluations/compare?first=small/eval/before&second=small/eval/after", "studies", "studies/quick",
    ):  # fmt: skip
        page.goto(f"{desk.url}/ui/{path}")
        assert page.locator("main").count() == page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        found = axe.Axe().run(page).response["violations"]
        assert not found, (path, [(one["id"], one["nodes"][0]["html"]) for one in found])
    assert "eval smollm2-135m" in page.locator(".tree").inner_text()
    page.goto(f"{desk.url}/ui/students/small/model")
    assert page.locator("#card").inner_text() == "# A card\n<script>alert(1)</script>"
    page.get_by_text("The release verifies").wait_for()
    # The plan comes beside the form, which stays as it is filled in.
    page.goto(f"{desk.url}/ui/runs/small/training")
    assert page.locator(".chart polyline").count() == 3
    assert page.get_by_role("spinbutton", name="Epochs").input_value() != ""
    page.get_by_role("spinbutton", name="Learning rate").fill("7")
    page.get_by_role("button", name="Show the plan").click()
    page.locator("#plan [role=alert]", has_text="learning_rate").wait_for()
    assert page.get_by_role("spinbutton", name="Learning rate").input_value() == "7"
    context.close()
