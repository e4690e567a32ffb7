"""Files that appear whole or not at all: what killed processes leave is swept, what live ones hold is not."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.files import atomic, atomic_folder, recover, write_text
from pipelines.runs import RunFolder

ROOT = Path(__file__).resolve().parents[2]
_S = 300


def started(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process that runs a piece of code, and has printed its first line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def remains(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("writer", ["atomic", "atomic_folder"])
def test_remains_of_a_killed_process_are_swept_and_those_of_a_live_one_stay(tmp_path: Path, writer: str) -> None:
    code = (
        f"import sys; from pathlib import Path; from pipelines.files import {writer}\n"
        f"with {writer}(Path(sys.argv[1])) as temporary:\n"
        "    print('writing', flush=True); sys.stdin.read()"
    )
    target = tmp_path / "a [b]"
    killed, live = started(code, target), started(code, target)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=_S)
        assert len(remains(tmp_path)) == 2
        for _ in range(2):
            if writer == "atomic":
                write_text(target, "whole")
            else:
                with atomic_folder(target) as temporary:
                    (temporary / "file").touch()
            assert [name.split(".")[2].partition("-")[0] for name in remains(tmp_path)] == [str(live.pid)]
    finally:
        live.communicate(timeout=_S)
    assert remains(tmp_path) == []


def test_swap_killed_between_its_two_renames_leaves_the_old_folder(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines import files\n"
        "files._exchanged = lambda one, other: False\n"  # as on a file system that cannot exchange names
        "rename = Path.rename\n"
        "def once(self, target):\n"
        "    rename(self, target); print('writing', flush=True); os.kill(os.getpid(), 9)\n"
        "Path.rename = once\n"
        "with files.atomic_folder(Path(sys.argv[1])) as temporary: (temporary / 'file').write_text('new')"
    )
    target = tmp_path / "release"
    target.mkdir()
    (target / "file").write_text("old")
    started(code, target).communicate(timeout=_S)
    assert not target.exists()
    recover(target)
    assert (target / "file").read_text() == "old"
    with atomic_folder(target) as temporary:
        (temporary / "file").write_text("newer")
    assert (target / "file").read_text() == "newer"
    assert remains(tmp_path) == []


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o022])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    kept = os.umask(umask)
    try:
        run = RunFolder.create(tmp_path / "runs", "mine")
        run.record("check", counts={})
        with atomic_folder(run.path / "release") as temporary:
            write_text(temporary / "README.md", "")
        with atomic(run.path / "new" / "file") as one:
            one.touch()
    finally:
        os.umask(kept)
    for path in [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_errors_of_writing_name_the_file_and_not_its_temporary(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic(tmp_path / "table.parquet"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "table.parquet")
    assert remains(tmp_path) == []


def test_writers_of_one_manifest_and_configuration_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.runs import RunFolder\n"
        "from pipelines.settings.config import change_config\n"
        "print('writing', flush=True); sys.stdin.read(); run = RunFolder.open(Path(sys.argv[1]), 'mine')\n"
        "for number in range(10):\n"
        "    run.record(f'{sys.argv[2]}-{number}', counts={})\n"
        "    change_config(run, lambda now: now.model_copy(update={'seed': now.seed + 1}))\n"
    )
    run = RunFolder.create(tmp_path, "mine")
    (run.path / "run.yaml").write_text("seed: 0\n")
    writers = [started(code, tmp_path, number) for number in range(3)]
    for writer in writers:  # all have loaded their code: now they write at once
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(_S) for writer in writers] == [0, 0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    assert len(run.manifest()["stages"]) == 30
    assert "seed: 30\n" in (run.path / "run.yaml").read_text()
    shutil.rmtree(run.path)
