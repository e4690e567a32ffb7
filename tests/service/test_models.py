"""Students from the page and over HTTP: trained on a release, asked, measured, compared; and what is refused."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import Service
from tests.training.conftest import tiny_student

__all__ = ["tiny_student"]


class Page:
    """A browser without scripts: a session, pages as text, and forms with its key."""

    def __init__(self, service: Service, role: str = "run") -> None:
        self.client = httpx.Client(base_url=service.url, timeout=600, follow_redirects=True)
        self.post("/login", token=service.secrets[role])

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        self.key = (re.findall(r'name="key" value="([^"]*)"', answer.text) or [""])[0]
        return answer.text

    def post(self, path: str, status: int = 200, **fields: Any) -> str:
        data = {"key": getattr(self, "key", ""), **fields}
        answer = self.client.post(path, data=data, headers={"origin": str(self.client.base_url).rstrip("/")})
        assert answer.status_code == status, answer.text
        return answer.text


@pytest.fixture(scope="module")
def desk(service: Service, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a run that has a release, and the tiny student by name."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(service.runs / "small", folder / "runs" / "small")
    shutil.copytree(tiny_student, folder / "students" / "tiny")
    running = Service(folder / "runs", "--rate", "1000", "--students", str(folder / "students"))
    yield running
    running.stop()


def test_a_student_is_trained_asked_and_measured(desk: Service) -> None:
    with Page(desk) as page:
        _walk(desk, page)


def _walk(desk: Service, page: Page) -> None:
    shown = page.get("/ui/runs/small/training?recipe=smollm2-135m-cpu")
    assert "No student yet" in shown
    rows = {
        name: int(most) for name, most in re.findall(r'name="rows\.(\w+)" type="number" min="0" max="(\d+)"', shown)
    }
    assert set(rows) >= {"direct", "benign"}, shown
    mine = {"recipe": "smollm2-135m-cpu", "name": "model", "student": "tiny", "rows.direct": "3", "rows.benign": "1"}
    mine |= {"epochs": "4", "batch_size": "4", "max_length": "512", "overlong_share": "0.5", "mixture": "", "seed": "1"}
    import time

    t = time.monotonic()
    planned = page.post("/ui/runs/small/training/start", do="plan", **mine)
    print("plan", time.monotonic() - t, planned[-4000:])
    page.post("/ui/runs/small/training/start", do="start", **mine)
    desk.until_over("small")
    print("train", time.monotonic() - t)
    shown = page.get("/ui/runs/small/training")
    print(re.sub("<[^>]*>", " ", shown[shown.index("<h1>") :])[:3000])
