"""A disk that fills up while a stage asks: one line, exit code 2, and the same command goes on once there is room."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.options import Options
from tests import commands


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system of the given size in memory, or gives the one that is mounted another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def sized(size: str) -> Path:
        nonlocal mounted
        options = f"remount,size={size}" if mounted else f"size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
        )
        if done.returncode and not mounted:
            pytest.skip("needs to mount a file system")
        mounted = True
        return folder

    try:
        yield sized
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def command(runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real command; one that hangs fails the test."""
    return commands.command(["--runs", str(runs), *words], timeout=500)


@contextmanager
def filled(folder: Path, room: int) -> Iterator[None]:
    """Leave only `room` bytes of a file system while the block runs."""
    space = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(max(space.f_bavail * space.f_frsize - room, 0)))
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a file system")
@pytest.mark.parametrize(("stage", "room"), [("generate", 150_000), ("generate", 20_000), ("judge", 40_000)])
def test_a_full_disk_ends_a_stage_with_one_line(
    judged: RunFolder, small_disk: Callable[..., Path], stage: str, room: int
) -> None:
    change(judged, Options(judges=("rehearsal-judge",)))
    if stage == "generate":
        for name in ("ledger.sqlite", "responses.parquet", "failed.parquet"):
            (judged.path / name).unlink()
    disk = small_disk("20m")
    run = RunFolder(shutil.copytree(judged.path, disk / "small"))
    written = {path.name: path.read_bytes() for path in run.path.glob("*.parquet")}
    with filled(disk, room):
        done = command(disk, stage, "small")
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "full" in done.stderr.splitlines()[-1] or "No space" in done.stderr.splitlines()[-1]
        assert {path.name: path.read_bytes() for path in run.path.glob("*.parquet")} == written
        # Looking does not need room, and a second try is the same line.
        assert command(disk, "ledger", "show", "small").returncode in (0, 2)
    again = command(disk, stage, "small")
    assert again.returncode == 0, again.stderr
