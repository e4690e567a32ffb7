"""A clone for the readers of the guides, and what they are told to have: an endpoint, a Hub, a student, people."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.rehearsal.server import rehearsing
from tests.cards.conftest import TestHub, serving
from tests.docs.pages import ROOT, parts
from tests.docs.reading import Reader, Surroundings
from tests.training.conftest import tiny_student as tiny_student

QUICKSTART = "docs/guides/quickstart.md"
_CLONED = (
    "pipelines",
    "curation",
    "cards",
    "training",
    "eval",
    "service",
    "saferthoughts",
    "LICENSE",
    "constraints-argilla.txt",
    "pyproject.toml",
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHub]:
    """The Hub of the tests, for all guides."""
    with serving(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def around(hub: TestHub, tiny_student: Path) -> Iterator[Surroundings]:
    """What stands in for what the guides' reader has."""
    with rehearsing() as url:
        yield Surroundings(
            environment={**hub.env(), "DEEPSEEK_API_KEY": "nobody-is-asked"},
            stand_ins={
                "http://127.0.0.1:8000/v1": url,
                "http://10.0.0.11:8000/v1": url,
                "http://10.0.0.12:8000/v1": url,
                "--model MODEL": "--model rehearsal-r1",
                "me/safe-reasoning": "alice/safe-reasoning",
                # A tiny model with random weights, so that training takes seconds.
                "train smollm2-135m-cpu": f"train smollm2-135m-cpu --student {tiny_student}",
                "review serve": "review serve --port 0",
            },
            afterwards={"saferthoughts review push": _vote},
        )


@pytest.fixture(scope="module")
def begun(around: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the quickstart was followed: the other guides go on from there, in `clone`."""
    clone = tmp_path_factory.mktemp("readers") / "saferthoughts"
    clone.mkdir()
    for name in _CLONED:
        copy = shutil.copy if (ROOT / name).is_file() else shutil.copytree
        copy(ROOT / name, clone / name)
    reader = Reader(clone, around)
    for part in parts(QUICKSTART):
        reader.follow(part)
    reader.close()
    return Path(shutil.copytree(clone, clone.with_name("begun")))


@pytest.fixture
def clone(begun: Path) -> Path:
    """A copy of that, in one and the same place for each guide, where the code is that warm commands have loaded."""
    place = begun.with_name("saferthoughts")
    shutil.rmtree(place)
    return Path(shutil.copytree(begun, place))


def _vote(folder: Path) -> None:
    """Two people vote, as they would on Argilla's pages: every row is safe and without a pattern."""
    from tests.review.conftest import Server

    server_file = json.loads((folder / "runs" / ".argilla" / "server.json").read_text(encoding="utf-8"))
    server = Server(folder / "runs", server_file["url"], 0)
    for dataset in server.ask("me/datasets")["items"]:
        for record in server.records(dataset["name"]):
            for name in ("annotator-1", "annotator-2"):
                server.vote(record, name)
