"""Publishing over HTTP to a Hub of our own: by who may, with the token of the service alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.cards.conftest import TestHub, start_hub  # noqa: F401 - a fixture
from tests.service.conftest import Service


def test_a_release_is_published_and_tagged(
    service: Service,
    start_hub: Callable[..., TestHub],  # noqa: F811
    tmp_path: Path,
) -> None:
    hub = start_hub()
    runs = tmp_path / "runs"
    shutil.copytree(service.runs / "small", runs / "small")
    own = Service(runs, environment=hub.env())
    version = own.get("/runs/small")["version"]
    wanted = {"repo": "acme/safe", "private": True}
    assert own.post("/runs/small/publish", wanted, "publish").status_code == 202
    state = own.until_over("small")
    assert (state["state"], state["job"]["action"]) == ("released", "publish")
    refs = hub.get("/api/datasets/acme/safe/refs")
    assert [tag["name"] for tag in refs["tags"]] == [f"v{version}"]
    assert state["job"]["asked_by"] == "publish"
    with own.client("read") as client:
        log = client.get("/runs/small/log").text
    assert f"acme/safe@v{version} published" in log
    assert "hf_alice" not in log
    own.stop()
