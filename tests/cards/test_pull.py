"""Pulling over HTTP with the real client: what comes is checked, and what cannot be pulled leaves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cards.conftest import REPO


def test_a_pull_is_checked_and_knows_what_it_is(hub: Any, versions: tuple[Path, Path]) -> None:
    for folder in versions:
        hub.run("publish", str(folder), "--repo", REPO)
    done = hub.run("pull", f"{REPO}@1.0.0", token=None)
    assert done.returncode == 0, done.stderr
    folder = hub.home / "safe-1.0.0"
    ours = {path.relative_to(versions[0]): path.read_bytes() for path in versions[0].rglob("*") if path.is_file()}
    theirs = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert theirs == ours
    assert "there already" in hub.run("pull", f"{REPO}@v1.0.0").stdout
    # Another day's bytes, or another hand's, under the right name.
    stale = folder / "data" / "improved" / "train-00000-of-00001.parquet"
    stale.write_bytes(b"x" + stale.read_bytes()[1:])
    again = hub.run("pull", f"{REPO}@v1.0.0")
    assert again.returncode == 0
    assert "1 files were not those of the commit" in again.stdout
    assert stale.read_bytes() == ours[Path("data/improved/train-00000-of-00001.parquet")]
    assert hub.run("pull", REPO).stdout.startswith("safe-1.1.0: acme/safe@v1.1.0")
    wrong = hub.run("pull", f"{REPO}@v1.1.0", "--to", "safe-1.0.0")
    assert (wrong.returncode, "holds acme/safe@v1.0.0" in wrong.stderr) == (2, True)
    # What a version before this one left says the same; and whoever has put something else there keeps it.
    (record,) = (
        path for path in (hub.home / "cache").rglob("releases/.records/*.json") if "v1.0.0" in path.read_text()
    )
    (folder / ".cache").mkdir()
    record.rename(folder / ".cache" / "saferthoughts.json")
    wrong = hub.run("pull", f"{REPO}@v1.1.0", "--to", "safe-1.0.0")
    assert (wrong.returncode, "holds acme/safe@v1.0.0" in wrong.stderr) == (2, True)
    (folder / ".cache" / "saferthoughts.json").rename(record)
    (folder / "lineage.json").unlink()
    wrong = hub.run("pull", f"{REPO}@v1.0.0")
    assert (wrong.returncode, "was not pulled from the Hub" in wrong.stderr) == (2, True)


def test_a_tag_that_was_moved_is_told(hub: Any, versions: tuple[Path, Path]) -> None:
    for folder in versions:
        hub.run("publish", str(folder), "--repo", REPO)
    hub.run("pull", f"{REPO}@v1.0.0")
    code = """
import sys
from huggingface_hub import HfApi
HfApi().delete_tag(sys.argv[1], tag="v1.0.0", repo_type="dataset")
HfApi().create_tag(sys.argv[1], tag="v1.0.0", revision="main", repo_type="dataset")
"""
    hub.python(code, REPO)
    done = hub.run("pull", f"{REPO}@v1.0.0")
    assert done.returncode == 2
    assert "somebody moved the tag" in done.stderr


def test_what_cannot_be_pulled_is_told_and_leaves_nothing(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.run("publish", str(versions[0]), "--repo", REPO)
    foreign = """
from huggingface_hub import HfApi
HfApi().create_repo("acme/foreign", repo_type="dataset")
HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="x.parquet", repo_id="acme/foreign", repo_type="dataset")
"""
    hub.python(foreign)
    for address, expected in (
        ("acme/foreign", "acme/foreign@main holds no release of SaferThoughts"),
        (f"{REPO}@v9.0.0", "Unknown version of acme/safe 'v9.0.0'"),
        ("acme/none", "There is no dataset acme/none"),
        ("nowhere", "neither a release folder nor a repository"),
    ):
        done = hub.run("pull", address)
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    hub.faults({"path": "/resolve/", "method": "GET", "status": 500, "times": 99, "skip": 8})
    assert hub.run("pull", REPO, "--to", "mine").returncode == 2
    assert {path.name for path in hub.home.iterdir() if path.name[0] != "."} <= {"root", "url", "cache", "hf"}
    hub.faults()
    hub.log()
    assert hub.run("pull", REPO, "--to", "mine").returncode == 0
    fetched = {entry[1] for entry in hub.log() if entry[0] == "GET" and "/resolve/" in entry[1]}
    assert len(fetched) < len([path for path in versions[0].rglob("*") if path.is_file()])


def test_a_full_disk_here_is_told_and_leaves_nothing(
    hub: Any, versions: tuple[Path, Path], small_disk: Callable[[int], Path]
) -> None:
    hub.run("publish", str(versions[0]), "--repo", REPO)
    disk = small_disk(100_000)
    done = hub.run("pull", f"{REPO}@v1.0.0", "--to", str(disk / "mine"))
    assert (done.returncode, "The disk is full." in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (disk / "mine").exists()


def test_with_the_hub_down_nothing_old_is_given_out(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.run("publish", str(versions[0]), "--repo", REPO)
    assert hub.run("release", "verify", f"{REPO}@v1.0.0").returncode == 0
    down = hub.run("release", "verify", f"{REPO}@v1.0.0", HF_ENDPOINT="http://127.0.0.1:9")
    assert (down.returncode, "does not answer" in down.stderr) == (2, True)


def test_addresses_do_wherever_folders_do(hub: Any, versions: tuple[Path, Path]) -> None:
    for folder in versions:
        hub.run("publish", str(folder), "--repo", REPO)
    compared = hub.run("compare", f"{REPO}@v1.0.0", str(versions[1]))
    assert "that makes version 1.1.0 (minor)" in compared.stdout, compared.stderr
    made = hub.run("regenerate", f"{REPO}@v1.1.0", "again", "--teacher", "rehearsal-general", "--yes")
    assert "Go on: saferthoughts run again" in made.stdout, made.stderr
    assert (hub.home / "runs" / "again" / "prompts.parquet").exists()
