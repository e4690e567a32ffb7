"""croissant.json is read by mlcroissant itself: the rows are there, and a file with another hash is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runs import RunFolder

READ = """
import sys
import mlcroissant as mlc
dataset = mlc.Dataset(sys.argv[1])
for name in ("improved", "benign"):
    print(name, sum(1 for _ in dataset.records(name)))
"""


@pytest.fixture
def release(released: RunFolder) -> Path:
    return released.path / "release"


def read(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", READ, str(folder / "croissant.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_mlcroissant_finds_nothing_to_say_and_reads_every_row(release: Path) -> None:
    rows = json.loads((release / "lineage.json").read_text())["rows"]
    done = read(release)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["improved", str(rows["improved"]), "benign", str(rows["benign"])]
    assert "error" not in done.stderr.lower()
    assert "recommended" not in done.stderr


def test_mlcroissant_refuses_a_file_with_another_hash(release: Path) -> None:
    (path,) = (release / "data" / "improved").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = read(release)
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()
