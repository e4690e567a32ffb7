"""A release of format 1 (before all configs had one schema), as version 0.1.0 built it, without its plots."""

import shutil
import zipfile
from pathlib import Path

import pytest

import saferthoughts as st
from cards.release.regenerate import Answering, regenerate
from eval.training_overlap import trained_prompts
from pipelines.runs import RunFolder
from tests.commands import command
from training.mixtures.mixture import draw


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("format-1.zip")) as packed:
        packed.extractall(tmp_path / "old")
    return tmp_path / "old"


def test_it_verifies_and_a_changed_row_of_its_metadata_is_found(old: Path, tmp_path: Path) -> None:
    done = command(["release", "verify", str(old)], tmp_path)
    assert (done.returncode, done.stderr.startswith("Next: ")) == (0, True), done.stderr
    (path,) = (old / "data" / "metadata").iterdir()
    shutil.copy(next((old / "data" / "benign").iterdir()), path)
    faults = st.verify(old).faults
    assert "metadata has other columns than a release" in faults


def test_it_is_loaded_trained_on_and_regenerated(old: Path, tmp_path: Path) -> None:
    release = st.load_release(old)
    assert release.rows == {"direct": 2, "improved": 3, "benign": 2}
    assert len(release.table("improved")) == 3
    mixture = draw(old, {"improved": 3, "benign": 2}, 0, tmp_path / "cache")
    assert all(row.category for row in mixture.rows)
    assert len(trained_prompts(old)) == 8, "five prompts, and the requests behind the three in templates"
    again = regenerate(old, tmp_path / "runs", "again", Answering("rehearsal"))
    assert again.read("prompts").num_rows == 5


def test_another_format_than_those_is_refused(old: Path) -> None:
    lineage = old / "lineage.json"
    lineage.write_text(lineage.read_text().replace("{", '{"format": 3,', 1))
    with pytest.raises(st.UserError, match="is a release of format 3, and this version reads 1 to 2"):
        st.load_release(old)


def test_a_new_release_compares_with_it_by_rows_and_categories(old: Path, released: RunFolder) -> None:
    found = st.compare(old, released.path / "release")
    assert found.step == "major"
    assert any(line.startswith("columns differ: category, ") for line in found.meaning)
    assert {balance.dimension for balance in found.balances} == {"category", "template"}
