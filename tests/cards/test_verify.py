"""A release can be checked by who gets it, and its recipe run again with another teacher."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from cards.release.regenerate import Answering, regenerate
from cards.verify import verify
from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config
from pipelines.settings.teacher import Teacher


@pytest.fixture
def release(released: RunFolder) -> Path:
    return released.path / "release"


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


def test_a_flipped_bit_anywhere_in_a_text_is_a_fault_and_never_a_crash(release: Path) -> None:
    for name in ("lineage.json", "README.md", "checksums.sha256", "croissant.json"):
        path = release / name
        before = path.read_bytes()
        for place, bit in zip(range(7, len(before), len(before) // 6), cycle((1, 128)), strict=False):
            path.write_bytes(before[:place] + bytes([before[place] ^ bit]) + before[place + 1 :])
            try:
                assert verify(release).faults, (name, place, bit)
            except UserError as error:
                assert name == "lineage.json", error  # noqa: PT017
        path.write_bytes(before)
    assert verify(release).faults == ()


def sealed(release: Path) -> None:
    """The checksums written anew, as somebody would who changed a file on purpose."""
    names = sorted(path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file())
    lines = [f"{file_hash(release / name)}  {name}\n" for name in names if name != "checksums.sha256"]
    (release / "checksums.sha256").write_text("".join(lines))


def changed(lineage: dict[str, Any], *keys: str, value: Any) -> None:
    for key in keys[:-1]:
        lineage = lineage[key]
    lineage[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (("sources",), [], "from other sources"),
        (("counts", "check", "accepted"), 1, "accepted and rejected are not those checked"),
        (("counts", "generate", "failed"), 1, "kept and failed are not those planned"),
        (("content", "prompts"), "0", "prompts.jsonl has other prompts"),
        (("seed",), 99, "README.md is not the card of lineage.json"),
        (("variants", "improved", "instruction"), "other", "the instruction of improved has another hash"),
        (("counts",), {}, "lineage.json is not as a release of this version has it (KeyError"),
    ],
)
def test_a_lineage_that_says_something_else_is_told(
    release: Path, keys: tuple[str, ...], value: Any, expected: str
) -> None:
    lineage = json.loads((release / "lineage.json").read_text())
    changed(lineage, *keys, value=value)
    (release / "lineage.json").write_text(json.dumps(lineage))
    sealed(release)
    assert expected in "; ".join(verify(release).faults)


def test_a_file_changed_with_its_checksum_is_told(release: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (path,) = (release / "data" / "improved").glob("*.parquet")
    pq.write_table(pq.read_table(path), path)
    sealed(release)
    assert verify(release).faults == ("croissant.json has other files or hashes than data",)
    first, *others = (release / "prompts.jsonl").read_text().splitlines()
    changed_first = json.dumps(json.loads(first) | {"text": "another request"})
    (release / "prompts.jsonl").write_text("\n".join([changed_first, *others, ""]))
    with pytest.raises(UserError, match="does not hold the prompts of this release"):
        regenerate(release, tmp_path, "new", Answering("rehearsal"))


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
        "croissant.json has other files or hashes than data",
    )


def test_a_lineage_has_every_instruction_and_rubric_in_words(release: Path) -> None:
    lineage = json.loads((release / "lineage.json").read_text())
    assert "{{ query }}" in lineage["variants"]["improved"]["instruction"]
    assert lineage["judging"]["rubrics"]
    assert all(entry["text"] for entry in lineage["judging"]["rubrics"].values())
    assert lineage["packages"]["pyarrow"]
    assert str(Path.home()) not in (release / "lineage.json").read_text()


def test_the_same_prompts_go_to_another_teacher(release: Path, released: RunFolder, tmp_path: Path) -> None:
    done = regenerate(release, tmp_path / "again", "new", Answering("rehearsal-general"))
    assert done.read("prompts").equals(released.read("prompts"))
    old, new = load_config(released), load_config(done)
    assert (new.variants, new.judging, new.repair, new.seed) == (old.variants, old.judging, old.repair, old.seed)
    assert set(new.teachers) == {"rehearsal-general"}
    generate(done)
    judge(done)
    assert {row["model"] for row in done.read("responses").to_pylist() if row["teacher"]} == {"rehearsal-4o"}


def test_an_endpoint_of_ones_own_can_answer(release: Path, tmp_path: Path) -> None:
    teacher = Teacher(base_url="http://127.0.0.1:9/v1", model="mine")
    config = load_config(regenerate(release, tmp_path, "new", Answering(teacher)))
    assert {name: entry.model for name, entry in config.teachers.items()} == {"mine": "mine"}


@pytest.mark.parametrize(
    ("teacher", "expected"), [("depseek", "Did you mean 'deepseek'"), ("rehearsal", "There is a run 'small'")]
)
def test_what_cannot_be_regenerated_is_told_and_nothing_made(
    release: Path, released: RunFolder, teacher: str, expected: str
) -> None:
    name = "small" if teacher == "rehearsal" else "new"
    before = (released.path / "run.yaml").read_bytes()
    with pytest.raises(UserError, match=expected):
        regenerate(release, released.path.parent, name, Answering(teacher))
    assert (released.path / "run.yaml").read_bytes() == before
    assert not (released.path.parent / "new").exists()


def test_what_is_no_release_is_told(tmp_path: Path, release: Path) -> None:
    with pytest.raises(UserError, match="is no release folder"):
        verify(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for text in ("[1]", "{}", '{"version": "one"}'):
        (other / "lineage.json").write_text(text)
        with pytest.raises(UserError, match=r"lineage\.json"):
            verify(other)
    (release / "prompts.jsonl").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"prompts\.jsonl cannot be read"):
        regenerate(release, tmp_path, "new", Answering("rehearsal"))
