"""`direct` in a release: kept with its patterns, called the baseline, and never what somebody gets unasked."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from cards.card.dataset_card import dataset_card, default_config
from cards.card.validator import front_matter_of
from cards.release.build import build_release
from cards.release_folder import lineage_now
from cards.verify import verify
from curation.quality.checks import check
from pipelines.records import PATTERNS, Prompt, Response, Verdict, from_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.options import Options


@pytest.fixture(scope="module")
def built(judged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(Path(shutil.copytree(judged_once, tmp_path_factory.mktemp("baseline") / "small")))
    repair(run)
    check(run)
    build_release(run)
    return run


def harmful_ids(run: RunFolder) -> set[str]:
    return {prompt.prompt_id for prompt in from_table(Prompt, run.read("prompts")) if prompt.kind == "harmful"}


def flagged(run: RunFolder) -> dict[str, list[str]]:
    """Ids of accepted harmful rows with a pattern, by variant."""
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    verdicts = from_table(Verdict, run.read("verdicts"))
    marked = {item.response_id for item in verdicts if any(getattr(item, name) for name in PATTERNS)}
    found: dict[str, list[str]] = {}
    for row in from_table(Response, run.read("responses")):
        if row.response_id in accepted & marked and row.prompt_id in harmful_ids(run):
            found.setdefault(row.variant, []).append(row.response_id)
    return found


def test_rows_with_a_pattern_are_kept_in_the_baseline_and_nowhere_else(built: RunFolder) -> None:
    assert list(flagged(built)) == ["direct"]
    own = {
        row.response_id: row.attempt
        for row in from_table(Response, built.read("responses"))
        if row.variant == "direct" and row.prompt_id in harmful_ids(built)
    }
    assert not any(own.values())
    reasons = {row["check_name"] for row in built.read("rejected").to_pylist() if row["response_id"] in own}
    assert "pattern_flagged" not in reasons
    # A request that is not refused is no row of a release, in the baseline neither.
    assert "refusal_missing" in reasons


def test_such_a_release_verifies_and_its_card_says_what_the_baseline_is(built: RunFolder) -> None:
    folder = built.path / "release"
    assert verify(folder).faults == ()
    entry = lineage_now(folder)["variants"]["direct"]
    assert (entry["repaired"], entry["pattern_checked"]) == (False, False)
    assert entry["flagged"] == len(flagged(built)["direct"]) > 0
    card = (folder / "README.md").read_text()
    assert "`direct` is the baseline (the study's *default*)" in card
    assert f"{entry['flagged']} carry a pattern" in card
    assert "Do not train a model on `direct` that is meant to be safe" in card


def test_a_card_that_tells_fewer_flagged_rows_than_there_are_is_found(built: RunFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built.path / "release", tmp_path / "release"))
    lineage = json.loads((folder / "lineage.json").read_text())
    lineage["variants"]["direct"]["flagged"] -= 1
    (folder / "lineage.json").write_text(json.dumps(lineage))
    assert any("rows with a pattern, the card says" in fault for fault in verify(folder).faults)


def test_load_dataset_without_a_name_gives_improved(built: RunFolder, tmp_path: Path) -> None:
    folder = str(built.path / "release")
    rows = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path))
    named = datasets.load_dataset(folder, "improved", split="train", cache_dir=str(tmp_path))
    assert rows["id"] == named["id"]
    assert len(rows) == lineage_now(Path(folder))["rows"]["improved"] > 0


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (("direct", "realsafe", "improved", "nocot", "benign"), "improved"),
        (("direct", "realsafe", "short", "benign"), "realsafe"),
        (("direct", "nocot", "benign"), None),
        (("direct",), None),
    ],
)
def test_the_default_is_improved_or_the_first_that_is_free_of_patterns(
    built: RunFolder, kept: tuple[str, ...], expected: str | None
) -> None:
    lineage: dict[str, Any] = lineage_now(built.path / "release")
    lineage["rows"] = {name: rows if name in kept else 0 for name, rows in lineage["rows"].items()}
    assert default_config(lineage) == expected
    card = dataset_card(lineage)
    marked = [one["config_name"] for one in front_matter_of(card)["configs"] if one.get("default")]
    assert marked == ([expected] if expected else [])
    asks = "`load_dataset` asks for a configuration's name" in card
    assert asks is (expected is None)


def test_a_run_can_check_and_repair_the_baseline_all_the_same(judged: RunFolder) -> None:
    names = ["direct", "realsafe", "improved", "short", "template"]
    change(judged, Options(also={"repair.variants": names, "checks.variants": names}))
    repair(judged)
    check(judged)
    assert flagged(judged) == {}
    folder = build_release(judged).folder
    assert verify(folder).faults == ()
    assert "is the baseline" not in (folder / "README.md").read_text()
    assert default_config(lineage_now(folder)) == "improved"
