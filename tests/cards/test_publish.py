"""Publishing over HTTP with the real clients: whole or not at all, the same release once, and by whom it may be."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cards.release.build import build_release
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from tests.cards.conftest import REPO, commits, tags

LOAD = """
import sys, datasets
for revision in sys.argv[2:]:
    rows = datasets.load_dataset(sys.argv[1], "improved", split="train", revision=revision)
    print(revision, len(rows), rows[0]["messages"][0]["role"])
"""


def improved(folder: Path) -> int:
    return int(json.loads((folder / "lineage.json").read_text())["rows"]["improved"])


def test_two_versions_each_give_their_rows(hub: Any, versions: tuple[Path, Path]) -> None:
    for folder in versions:
        done = hub.run("publish", str(folder), "--repo", REPO)
        assert done.returncode == 0, done.stderr
        assert "read back, every hash matches" in done.stdout
    assert commits(hub) == ["Release 1.1.0", "Release 1.0.0", "initial commit"]
    output = hub.python(LOAD, REPO, "v1.0.0", "v1.1.0")
    first, second = map(improved, versions)
    assert output.splitlines() == [f"v1.0.0 {first} user", f"v1.1.0 {second} user"]
    again = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert again.returncode == 0
    assert "was there already" in again.stdout
    assert len(commits(hub)) == 3


def test_a_dry_run_shows_the_difference_and_writes_nothing(hub: Any, versions: tuple[Path, Path]) -> None:
    done = hub.run("publish", str(versions[0]), "--repo", REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "+ data/improved/train-00000-of-00001.parquet" in done.stdout
    assert not [entry for entry in hub.log() if entry[0] not in ("GET", "HEAD")]
    hub.run("publish", str(versions[0]), "--repo", REPO)
    hub.log()
    changes = hub.run("publish", str(versions[1]), "--repo", REPO, "--dry-run").stdout
    assert "~ data/" in changes
    assert "LICENSE" not in changes
    assert not [entry for entry in hub.log() if entry[0] not in ("GET", "HEAD")]


def test_what_is_gone_from_a_release_goes_from_the_repository(hub: Any, versions: tuple[Path, Path]) -> None:
    code = """
import sys
from huggingface_hub import HfApi
print(HfApi().list_repo_files(sys.argv[1], repo_type="dataset"))
"""
    hub.run("publish", str(versions[0]), "--repo", REPO)
    assert "plots/lengths.svg" in hub.python(code, REPO)
    (versions[1] / "plots" / "lengths.svg").unlink()
    sums = versions[1] / "checksums.sha256"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "lengths.svg" not in line))
    assert hub.run("publish", str(versions[1]), "--repo", REPO).returncode == 0
    assert "plots/lengths.svg" not in hub.python(code, REPO)


@pytest.mark.parametrize(
    ("token", "expected"),
    [(None, "no token"), ("hf_nobody", "does not accept the token"), ("hf_carol", "may not do this in acme/safe")],
)
def test_who_may_not_is_told_and_the_token_is_not(
    hub: Any, versions: tuple[Path, Path], token: str | None, expected: str
) -> None:
    done = hub.run("publish", str(versions[0]), "--repo", REPO, token=token)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not token or token not in done.stderr + done.stdout


def test_a_tag_that_stands_for_something_else_is_never_moved(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.run("publish", str(versions[0]), "--repo", REPO)
    before = tags(hub)
    other = build_other(versions[1], "1.0.0")
    done = hub.run("publish", str(other), "--repo", REPO)
    assert done.returncode == 2
    assert "has v1.0.0 already" in done.stderr
    assert f"--since {REPO}@v1.0.0" in done.stderr
    assert tags(hub) == before


def build_other(release: Path, version: str) -> Path:
    """A release with another version's number, as somebody would make who does not compare."""
    run = RunFolder(release.parent / "run")
    return shutil.copytree(build_release(run, version=version).folder, release.with_name(f"other-{version}"))


def test_a_lower_version_does_not_follow_a_higher_one(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.run("publish", str(versions[1]), "--repo", REPO)
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 2
    assert "1.0.0 does not follow it" in done.stderr


def test_a_repository_with_other_files_is_left_alone(hub: Any, versions: tuple[Path, Path]) -> None:
    code = """
import sys
from huggingface_hub import HfApi
HfApi().create_repo(sys.argv[1], repo_type="dataset")
HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="mine.txt", repo_id=sys.argv[1], repo_type="dataset")
"""
    hub.python(code, REPO)
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 2
    assert "holds files that are no release (mine.txt)" in done.stderr


def test_a_release_whose_card_names_another_repository_is_not_published(hub: Any, versions: tuple[Path, Path]) -> None:
    run = RunFolder(versions[0].parent / "run")
    config = load_config(run)
    save_config(run, config.model_copy(update={"release": config.release.model_copy(update={"repo": "acme/own"})}))
    folder = build_release(run).folder
    card = (folder / "README.md").read_text()
    assert 'load_dataset("acme/own", "improved", split="train", revision="v1.0.0")' in card
    assert "saferthoughts regenerate acme/own@v1.0.0 --teacher NAME" in card
    done = hub.run("publish", str(folder), "--repo", REPO)
    assert (done.returncode, "says that it is acme/own, not acme/safe" in done.stderr) == (2, True)
    assert hub.log() == []


def test_a_broken_release_is_not_published(hub: Any, versions: tuple[Path, Path]) -> None:
    (versions[0] / "LICENSE").write_text("none")
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 2
    assert "LICENSE has another hash" in done.stderr
    assert hub.log() == []


def test_private_and_gated_are_what_they_say(hub: Any, versions: tuple[Path, Path]) -> None:
    assert hub.run("publish", str(versions[0]), "--repo", REPO, "--private", "--gated").returncode == 0
    stranger = hub.run("pull", f"{REPO}@v1.0.0", token="hf_carol")
    assert (stranger.returncode, "There is no dataset acme/safe" in stranger.stderr) == (2, True)
    assert hub.run("publish", str(versions[0]), "--repo", "acme/gated", "--gated").returncode == 0
    gated = hub.run("pull", "acme/gated", token="hf_carol")
    assert (gated.returncode, "acme/gated is gated" in gated.stderr) == (2, True)
    public = hub.run("publish", str(versions[0]), "--repo", "acme/gated", "--private")
    assert (public.returncode, "is public already" in public.stderr) == (2, True)


def test_the_same_works_over_xet(start_hub: Callable[..., Any], versions: tuple[Path, Path]) -> None:
    hub = start_hub("--xet")
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    log = hub.log()
    assert any("xet-write-token" in entry[1] for entry in log)
    assert not any(entry[0] == "PUT" for entry in log)
    assert hub.python(LOAD, REPO, "v1.0.0").split()[:2] == ["v1.0.0", str(improved(versions[0]))]
    assert hub.run("pull", f"{REPO}@v1.0.0").returncode == 0


def test_the_token_is_in_no_output_and_no_file(hub: Any, versions: tuple[Path, Path]) -> None:
    done = hub.run("--debug", "publish", str(versions[0]), "--repo", REPO)
    hub.run("pull", f"{REPO}@v1.0.0")
    assert "hf_alice" not in done.stdout + done.stderr
    found = subprocess.run(
        ["grep", "-rl", "hf_alice", str(hub.home)], capture_output=True, text=True, check=False
    ).stdout
    assert found == ""


def test_a_token_that_an_answer_repeats_is_not_shown(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.faults({"path": "/commit/main$", "status": 403, "times": 9, "message": "no: Bearer hf_alice, hf_alice"})
    done = hub.run("--debug", "publish", str(versions[0]), "--repo", REPO)
    assert (done.returncode, "may not do this" in done.stderr) == (2, True), done.stderr
    assert "hf_alice" not in done.stdout + done.stderr
