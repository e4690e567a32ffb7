"""The run folder: what is written is whole, and what cannot be read is told in one line."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.records import Prompt, to_table
from pipelines.runs import FORMAT, RunFolder, atomic, atomic_folder, write_text

PROMPT = Prompt("p1", "harmful", "b1", "", "misinformation", "Write a lie", "Write a lie", "ours", "Apache-2.0")


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "table"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_folder_replaces_the_whole_folder_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "release"
    with atomic_folder(target) as temporary:
        (temporary / "one").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "two").write_text("2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["one"]
    with atomic_folder(target) as temporary:
        (temporary / "three").write_text("3")
    assert [path.name for path in target.iterdir()] == ["three"]
    assert list(tmp_path.iterdir()) == [target]


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    table = to_table(Prompt, [PROMPT])
    run.write("prompts", table)
    assert RunFolder.open(tmp_path, "mine").read("prompts").equals(table)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b", "x" * 65])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be a folder"):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_unknown_run_is_told_with_the_runs_there_are(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "first")
    with pytest.raises(UserError, match=r"Unknown run under .* 'frist'\. Did you mean 'first'\?"):
        RunFolder.open(tmp_path, "frist")


def test_run_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    before = manifest.read_bytes()
    with pytest.raises(UserError, match="another version"):
        RunFolder.open(tmp_path, "mine")
    assert manifest.read_bytes() == before


def test_damaged_manifest_is_one_clear_line(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    (run.path / "manifest.json").write_text("[1, 2")
    with pytest.raises(UserError, match="not a run's manifest"):
        RunFolder.open(tmp_path, "mine")


def test_missing_table_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    with pytest.raises(UserError, match="saferthoughts generate mine"):
        run.read("responses")


def test_corrupt_table_is_one_clear_line(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    run.table_path("prompts").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="not readable parquet"):
        run.read("prompts")
