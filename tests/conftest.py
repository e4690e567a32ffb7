"""Fixtures that areas share: a small run, made by the rehearsal teacher once a session, copied for each test.

The suite runs in two processes side by side (`make test`); `pytest` alone runs all of it, or a part, in one.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

# Nothing in the suite may reach for the Hub; set before any library reads it.
os.environ["HF_HUB_OFFLINE"] = "1"
# Each process has its share of the cores: with threads for all of them they would wait for each other.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

from pipelines.options import Options, configured
from pipelines.runs import RunFolder
from pipelines.start import start

SMALL = Options(harmful=12, benign=6, seed=5)
# Fixtures that take long to make: the tests with one of them go to one process.
COSTLY = ("cluster", "server", "built", "students", "real_student", "tiny_student")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in COSTLY:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.generate import generate
    from pipelines.judge import judge

    run = start(tmp_path_factory.mktemp("runs"), "small", configured(SMALL)).run
    generate(run)
    judge(run)
    return run.path


@pytest.fixture
def judged(judged_once: Path, tmp_path: Path) -> RunFolder:
    """A run that was generated and judged, the test's own to change."""
    shutil.copytree(judged_once, tmp_path / "runs" / "small")
    return RunFolder.open(tmp_path / "runs", "small")


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Start a run with the given options."""

    def begin(**options: object) -> RunFolder:
        return start(tmp_path / "runs", "new", configured(Options(**options))).run  # type: ignore[arg-type]

    return begin
