"""Two releases side by side, and the version number that their difference makes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cards.compare import compare, lines_of, proposed
from cards.release.build import build_release
from cards.verify import verify
from curation.quality.checks import check
from pipelines.errors import UserError
from pipelines.judges.stage import judge
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config


@pytest.fixture
def old(released: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released.path / "release", tmp_path / "old"))


def without(run: RunFolder, variant: str, count: int) -> None:
    """Take some rows of a variant out of the accepted ones."""
    names = [row.response_id for row in from_table(Response, run.read("responses")) if row.variant == variant]
    kept = [name for name in run.read("accepted")["response_id"].to_pylist() if name not in names[:count]]
    table = run.read("accepted")
    run.write("accepted", table.filter([name in kept for name in table["response_id"].to_pylist()]))


def test_a_release_does_not_differ_from_itself(old: Path) -> None:
    found = compare(old, old)
    assert found.step is None
    assert lines_of(found) == []
    assert not any(drift.apart for drift in found.drifts)
    assert all(balance.distance == 0 for balance in found.balances)


def test_fewer_rows_are_a_patch_and_more_rows_a_minor_version(old: Path, released: RunFolder, tmp_path: Path) -> None:
    without(released, "nocot", 3)
    fewer = build_release(released, since=old).folder
    assert compare(old, fewer).step == "patch"
    assert "version: 1.0.1" in (fewer / "README.md").read_text() or "version 1.0.1" in (fewer / "README.md").read_text()
    assert "nocot: 12 to 9 rows (3 removed)." in (fewer / "CHANGELOG.md").read_text()
    before = Path(shutil.copytree(fewer, tmp_path / "fewer"))
    check(released)
    more = build_release(released, since=before).folder
    changelog = (more / "CHANGELOG.md").read_text()
    assert "## 1.1.0\n\n- nocot: 9 to 12 rows (3 added).\n\n## 1.0.1\n" in changelog
    assert changelog.count("## ") == 3
    assert verify(more).faults == ()


def test_another_instruction_is_a_major_version(old: Path, released: RunFolder) -> None:
    config = load_config(released)
    save_config(released, config.model_copy(update={"instructions": {"improved": "Mind the risk. {{ query }}"}}))
    folder = build_release(released, since=old).folder
    found = compare(old, folder)
    assert found.step == "major"
    assert found.meaning == ("the instruction of improved is another one",)
    assert found.versions == ("1.0.0", "2.0.0")


def test_a_variant_that_is_gone_is_a_major_version(old: Path, released: RunFolder) -> None:
    without(released, "short", 1000)
    with pytest.raises(UserError, match=r"Version 1\.0\.1 understates .*give 2\.0\.0 or higher\. config short is gone"):
        build_release(released, since=old, version="1.0.1")
    assert build_release(released, since=old, version="3.0.0").folder.exists()


def test_an_understated_version_leaves_the_old_release_as_it_was(old: Path, released: RunFolder) -> None:
    before = (released.path / "release" / "checksums.sha256").read_bytes()
    without(released, "nocot", 1)
    with pytest.raises(UserError, match=r"understates what differs from 1\.0\.0: give 1\.0\.1 or higher"):
        build_release(released, since=old, version="1.0.0")
    with pytest.raises(UserError, match="version"):
        build_release(released, version="one")
    assert (released.path / "release" / "checksums.sha256").read_bytes() == before


def test_drift_is_told_with_its_intervals(old: Path, released: RunFolder) -> None:
    responses = [
        replace(row, answer="I will not do that, it would hurt people. " * 3) if row.variant == "nocot" else row
        for row in from_table(Response, released.read("responses"))
    ]
    released.write("responses", to_table(Response, responses))
    judge(released)
    check(released)
    found = compare(old, build_release(released, since=old).folder)
    (opening,) = [drift for drift in found.drifts if drift.config == "nocot" and "Sorry" in drift.figure]
    assert opening.apart
    assert opening.after.rate == 0
    (words,) = [drift for drift in found.drifts if drift.config == "nocot" and drift.figure == "words of answer"]
    assert words.apart
    assert not any(drift.apart for drift in found.drifts if drift.config != "nocot")
    assert any(line.startswith("nocot: words of answer") for line in lines_of(found))


def test_rows_that_lie_in_other_categories_are_told_with_intervals(old: Path, released: RunFolder) -> None:
    prompts = {row.prompt_id: row for row in from_table(Prompt, released.read("prompts"))}
    kept = next(prompt.template_id for prompt in prompts.values() if prompt.kind == "harmful")
    dropped = {
        row.response_id
        for row in from_table(Response, released.read("responses"))
        if row.variant == "nocot" and prompts[row.prompt_id].template_id != kept
    }
    table = released.read("accepted")
    released.write("accepted", table.filter([name not in dropped for name in table["response_id"].to_pylist()]))
    found = compare(old, build_release(released, since=old).folder)
    moves = {(one.config, one.dimension): one for one in found.balances}
    for one in moves.values():
        for when in ("before", "after"):
            assert sum(getattr(share, when).rate for share in one.shares) == pytest.approx(1)
        assert all(share.before.low <= share.before.rate <= share.before.high for share in one.shares)
    most = moves["nocot", "template"].most
    assert most.figure == (kept or "bare")
    assert most.after.rate == 1 > most.before.rate
    assert moves["improved", "template"].distance == 0
    # Every figure is JSON that any reader takes.
    assert "NaN" not in json.dumps(found.plain(), allow_nan=False)


def test_another_model_behind_a_judges_name_is_a_major_version(old: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(old, tmp_path / "other"))
    lineage = json.loads((other / "lineage.json").read_text())
    name = next(iter(lineage["judging"]["judges"]))
    lineage["judging"]["judges"][name]["model"] = "another"
    lineage["benign_variant"] = "short"
    (other / "lineage.json").write_text(json.dumps(lineage))
    found = compare(old, other)
    assert found.step == "major"
    assert any(f"the judge {name} is another" in what for what in found.meaning)
    assert any("benign prompts are asked as in short" in what for what in found.meaning)
    del lineage["judging"]["judges"]
    (other / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(UserError, match="not as a release of this version"):
        compare(old, other)


@given(st.tuples(*[st.integers(0, 50)] * 3), st.sampled_from(["major", "minor", "patch", None]))
def test_the_next_version_is_higher_by_one_step(numbers: tuple[int, int, int], step: object) -> None:
    version = ".".join(map(str, numbers))
    following = tuple(int(part) for part in proposed(version, step).split("."))  # type: ignore[arg-type]
    assert following > numbers if step else following == numbers
    assert sum(following) == 1 + sum(numbers[: ("major", "minor", "patch").index(step) + 1]) if step else True  # type: ignore[arg-type]


def test_what_is_no_release_is_told(old: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no release folder"):
        compare(old, tmp_path / "empty")
