"""Attacks are played through the real command on copies of a run and a release of it."""

import shutil
from pathlib import Path

import pytest

from tests.security.commands import Command


@pytest.fixture
def command(judged_once: Path, tmp_path: Path) -> Command:
    return Command(tmp_path, judged_once)


@pytest.fixture
def release(released_once: Path, tmp_path: Path) -> Path:
    """A release folder, the test's own to spoil."""
    return Path(shutil.copytree(released_once / "release", tmp_path / "theirs"))
