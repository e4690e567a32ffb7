"""A release can be checked by who gets it, and its recipe run again with another teacher."""

import json
from pathlib import Path

import pytest

from cards.regenerate import regenerate
from cards.release import build_release
from cards.verify import verify
from curation.checks import check
from pipelines.config import Teacher, load_config
from pipelines.errors import UserError
from pipelines.generate import generate
from pipelines.judge import judge
from pipelines.repair import repair
from pipelines.runs import RunFolder


@pytest.fixture
def release(judged: RunFolder) -> Path:
    repair(judged)
    check(judged)
    return build_release(judged).folder


def test_a_release_as_it_was_built_is_whole(release: Path) -> None:
    found = verify(release)
    assert found.faults == ()
    assert found.checked > 40


def test_a_single_flipped_byte_is_found_wherever_it_is(release: Path) -> None:
    for path in sorted(file for file in release.rglob("*") if file.is_file() and file.name != "checksums.sha256"):
        before = path.read_bytes()
        middle = len(before) // 2
        path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        name = path.relative_to(release).as_posix()
        try:
            faults = verify(release).faults
        except UserError as error:
            assert name == "lineage.json", error  # noqa: PT017
        else:
            assert any(fault.startswith(name) for fault in faults), name
        path.write_bytes(before)
    assert verify(release).faults == ()


def test_files_that_are_missing_or_too_many_are_named(release: Path) -> None:
    (release / "LICENSE").unlink()
    (release / "more.txt").write_text("more")
    assert set(verify(release).faults) == {"LICENSE is missing", "more.txt is not in checksums.sha256"}


def test_content_is_told_apart_from_bytes(release: Path) -> None:
    """Rows written again by something else are the same rows, in another file."""
    import pyarrow.parquet as pq

    (path,) = (release / "data" / "improved").glob("*.parquet")
    pq.write_table(pq.read_table(path), path, compression="none")
    assert verify(release).faults == (
        "data/improved/train-00000-of-00001.parquet has another hash than checksums.sha256 says",
    )


def test_a_lineage_has_every_instruction_and_rubric_in_words(release: Path) -> None:
    lineage = json.loads((release / "lineage.json").read_text())
    assert "{{ query }}" in lineage["variants"]["improved"]["instruction"]
    assert lineage["judging"]["rubrics"]
    assert all(entry["text"] for entry in lineage["judging"]["rubrics"].values())
    assert lineage["packages"]["pyarrow"]
    assert str(Path.home()) not in (release / "lineage.json").read_text()


def test_the_same_prompts_go_to_another_teacher(release: Path, judged: RunFolder, tmp_path: Path) -> None:
    done = regenerate(release, tmp_path / "again", "new", "rehearsal-general")
    assert done.run.read("prompts").equals(judged.read("prompts"))
    old, new = load_config(judged), load_config(done.run)
    assert (new.variants, new.judging, new.repair, new.seed) == (old.variants, old.judging, old.repair, old.seed)
    assert set(new.teachers) == {"rehearsal-general"}
    generate(done.run)
    judge(done.run)
    assert {row["model"] for row in done.run.read("responses").to_pylist() if row["teacher"]} == {"rehearsal-4o"}


def test_an_endpoint_of_ones_own_can_answer(release: Path, tmp_path: Path) -> None:
    teacher = Teacher(base_url="http://127.0.0.1:9/v1", model="mine")
    assert regenerate(release, tmp_path, "new", teacher).teachers == {"flags": "mine"}


@pytest.mark.parametrize(
    ("teacher", "told"), [("depseek", "Did you mean 'deepseek'"), ("rehearsal", "There is a run 'small'")]
)
def test_what_cannot_be_regenerated_is_told_and_nothing_made(
    release: Path, judged: RunFolder, teacher: str, told: str
) -> None:
    name = "small" if teacher == "rehearsal" else "new"
    before = (judged.path / "run.yaml").read_bytes()
    with pytest.raises(UserError, match=told):
        regenerate(release, judged.path.parent, name, teacher)
    assert (judged.path / "run.yaml").read_bytes() == before
    assert not (judged.path.parent / "new").exists()


def test_what_is_no_release_is_told(tmp_path: Path, release: Path) -> None:
    with pytest.raises(UserError, match="is no release folder"):
        verify(tmp_path)
    (release / "prompts.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"prompts\.parquet cannot be read"):
        regenerate(release, tmp_path, "new", "rehearsal")
