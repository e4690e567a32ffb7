"""Attacks are played through the real command on copies of a run and a release of it."""

import shutil
from pathlib import Path

import pytest

from cards.release import build_release
from curation.quality.checks import check
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from tests.security.commands import Command


@pytest.fixture
def command(judged_once: Path, tmp_path: Path) -> Command:
    return Command(tmp_path, judged_once)


@pytest.fixture(scope="session")
def released_once(judged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = RunFolder(shutil.copytree(judged_once, tmp_path_factory.mktemp("released") / "small"))
    repair(run)
    check(run)
    build_release(run)
    return run.path / "release"


@pytest.fixture
def release(released_once: Path, tmp_path: Path) -> Path:
    """A release folder, the test's own to spoil."""
    return Path(shutil.copytree(released_once, tmp_path / "theirs"))
