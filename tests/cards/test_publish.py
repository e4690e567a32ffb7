"""Publishing and pulling over HTTP with the real clients: whole or not at all, whatever goes wrong on the way."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cards.release import build_release
from curation.quality.checks import check
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config

REPO = "acme/safe"
LOAD = """
import sys, datasets
for revision in sys.argv[2:]:
    rows = datasets.load_dataset(sys.argv[1], "improved", split="train", revision=revision)
    print(revision, len(rows), rows[0]["messages"][0]["role"])
"""


@pytest.fixture(scope="module")
def built(judged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases 1.0.0 and, with the rows that it left out, 1.1.0, beside their run."""
    folder = tmp_path_factory.mktemp("built")
    run = RunFolder(shutil.copytree(judged_once, folder / "run"))
    check(run)
    accepted = run.read("accepted")
    run.write("accepted", accepted.slice(4))
    first = shutil.copytree(build_release(run).folder, folder / "first")
    run.write("accepted", accepted)
    shutil.copytree(build_release(run, since=first).folder, folder / "second")
    return folder


@pytest.fixture
def versions(built: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The two releases, the test's own to change; their run is beside them."""
    folder = shutil.copytree(built, tmp_path / "built")
    return folder / "first", folder / "second"


def improved(folder: Path) -> int:
    return int(json.loads((folder / "lineage.json").read_text())["rows"]["improved"])


def tags(hub: Any) -> dict[str, str]:
    """The commits of all tags and branches."""
    refs = hub.get(f"/api/datasets/{REPO}/refs")
    return {ref["name"]: ref["targetCommit"] for ref in [*refs["tags"], *refs["branches"]]}


def commits(hub: Any) -> list[str]:
    """The titles of all commits, the newest first."""
    return [commit["title"] for commit in hub.get(f"/api/datasets/{REPO}/commits/main")]


def test_two_versions_each_give_their_rows(hub: Any, versions: tuple[Path, Path]) -> None:
    for folder in versions:
        done = hub.run("publish", str(folder), "--repo", REPO)
        assert done.returncode == 0, done.stderr
        assert "read back, every hash matches" in done.stdout
    assert commits(hub) == ["Release 1.1.0", "Release 1.0.0", "initial commit"]
    told = hub.python(LOAD, REPO, "v1.0.0", "v1.1.0")
    first, second = map(improved, versions)
    assert told.splitlines() == [f"v1.0.0 {first} user", f"v1.1.0 {second} user"]
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
    assert "~ data/metadata/train-00000-of-00001.parquet" in changes
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


PASSING = {
    "429 with Retry-After": {"path": "/commit/main$", "status": 429, "headers": {"Retry-After": "1"}},
    "429 with a date gone by": {
        "path": "/commit/main$",
        "status": 429,
        "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
    },
    "408 at the tag": {"path": "/tag/", "status": 408},
    "500 at the commit": {"path": "/commit/main$", "status": 500},
    "503 at the tag": {"path": "/tag/", "status": 503, "times": 2},
    "connection cut before the commit": {"path": "/commit/main$", "cut": True},
    "connection cut after the commit": {"path": "/commit/main$", "cut": True, "after": True},
    "500 after the commit landed": {"path": "/commit/main$", "status": 500, "after": True},
    "connection cut after the tag": {"path": "/tag/", "cut": True, "after": True},
    "500 at an upload": {"path": "^/_large/", "method": "PUT", "status": 500},
    "slow": {"path": "/commit/main$", "delay": 2.0},
    "502 while reading back": {"path": "/tree/", "method": "GET", "status": 502, "skip": 2},
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_lived_through_and_nothing_is_made_twice(
    hub: Any, versions: tuple[Path, Path], fault: dict[str, Any]
) -> None:
    hub.faults(fault)
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    assert commits(hub) == ["Release 1.0.0", "initial commit"]
    found = tags(hub)
    assert found["v1.0.0"] == found["main"]


LASTING = {
    "401": ({"path": "whoami", "method": "GET", "status": 401}, "does not accept the token"),
    "403 at the commit": ({"path": "/commit/main$", "status": 403, "message": "read only"}, "read only"),
    "404 at the tag": ({"path": "/tag/", "status": 404}, "refused: status 404"),
    "full disk at the Hub": ({"path": "^/_large/", "method": "PUT", "status": 507}, "no room left"),
    "409 at the commit": ({"path": "/commit/main$", "status": 409}, "Somebody else pushed to acme/safe"),
    "412 at the commit": ({"path": "/commit/main$", "status": 412}, "Somebody else pushed to acme/safe"),
    "500 for ever": ({"path": "/commit/main$", "status": 500}, "status 500"),
}


@pytest.mark.parametrize(("fault", "told"), LASTING.values(), ids=LASTING)
def test_what_lasts_is_told_in_a_line_and_going_on_works(
    hub: Any, versions: tuple[Path, Path], fault: dict[str, Any], told: str
) -> None:
    hub.faults({**fault, "times": 99})
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    hub.faults()
    assert hub.run("publish", str(versions[0]), "--repo", REPO).returncode == 0
    assert commits(hub)[:1] == ["Release 1.0.0"]


def test_a_hub_that_says_nothing_is_given_up_and_what_landed_is_found(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.faults({"path": "/commit/main$", "delay": 1200.0, "after": True, "status": 500})
    started = time.monotonic()
    done = hub.run("publish", str(versions[0]), "--repo", REPO, SAFERTHOUGHTS_HUB_TIMEOUT="5")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 600
    assert commits(hub) == ["Release 1.0.0", "initial commit"]
    wrong = hub.run("publish", str(versions[0]), "--repo", REPO, SAFERTHOUGHTS_HUB_TIMEOUT="soon")
    assert (wrong.returncode, "SAFERTHOUGHTS_HUB_TIMEOUT is 'soon'" in wrong.stderr) == (2, True)


def test_a_full_disk_here_is_told_and_leaves_nothing(
    hub: Any, versions: tuple[Path, Path], small_disk: Callable[[int], Path]
) -> None:
    hub.run("publish", str(versions[0]), "--repo", REPO)
    disk = small_disk(100_000)
    done = hub.run("pull", f"{REPO}@v1.0.0", "--to", str(disk / "mine"))
    assert (done.returncode, "The disk is full." in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (disk / "mine").exists()


def test_a_hub_that_is_down_is_told(hub: Any, versions: tuple[Path, Path]) -> None:
    done = hub.run("publish", str(versions[0]), "--repo", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "http://127.0.0.1:9 does not answer" in done.stderr


@pytest.mark.parametrize(
    ("token", "told"),
    [(None, "no token"), ("hf_nobody", "does not accept the token"), ("hf_carol", "may not do this in acme/safe")],
)
def test_who_may_not_is_told_and_the_token_is_not(
    hub: Any, versions: tuple[Path, Path], token: str | None, told: str
) -> None:
    done = hub.run("publish", str(versions[0]), "--repo", REPO, token=token)
    assert done.returncode == 2
    assert told in done.stderr
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


def test_a_push_by_somebody_else_in_between_is_told(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.run("publish", str(versions[0]), "--repo", REPO)
    hub.faults({"path": "/commit/main$", "delay": 60.0})
    ours = hub.start("publish", str(versions[1]), "--repo", REPO)
    hub.wait_until_held()
    code = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id=sys.argv[1], repo_type="dataset",
                    commit_message="notes of mine")
"""
    hub.python(code, REPO, token="hf_bob")
    hub.faults()
    _, told = ours.communicate(timeout=60)
    assert ours.returncode == 2, told
    assert "Somebody else pushed to acme/safe" in told
    assert "'notes of mine' by bob" in told
    assert "v1.1.0" not in tags(hub)


def test_of_six_at_once_one_wins_and_five_are_told(hub: Any, versions: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(versions[0].parent / "run")
    accepted = run.read("accepted")
    folders = []
    for number in range(6):
        run.write("accepted", accepted.slice(number))
        folders.append(shutil.copytree(build_release(run, version="1.0.0").folder, tmp_path / f"racer{number}"))
    racers = [hub.start("publish", str(folder), "--repo", REPO) for folder in folders]
    ends = [(racer.communicate(timeout=170), racer.returncode) for racer in racers]
    assert sorted(code for _, code in ends) == [0, 2, 2, 2, 2, 2], ends
    for (_, told), code in ends:
        assert code == 0 or "Somebody else pushed" in told or "with another content" in told, told
        assert "Traceback" not in told
    assert commits(hub) == ["Release 1.0.0", "initial commit"]
    found = tags(hub)
    assert found["v1.0.0"] == found["main"]


def test_a_killed_upload_goes_on_where_it_was(hub: Any, versions: tuple[Path, Path]) -> None:
    large = [path for path in versions[0].rglob("*") if path.suffix in (".parquet", ".png")]
    hub.faults({"path": "^/_large/", "method": "PUT", "delay": 60.0, "skip": 4})
    first = hub.start("publish", str(versions[0]), "--repo", REPO)
    hub.wait_until_held()
    sent = sum(entry[0] == "PUT" and entry[2] == 200 for entry in hub.log())
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    hub.faults()
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    again = sum(entry[0] == "PUT" for entry in hub.log())
    assert (sent, again) == (4, len(large) - 4)
    assert commits(hub) == ["Release 1.0.0", "initial commit"]


def test_killed_between_commit_and_tag_the_tag_is_made_later(hub: Any, versions: tuple[Path, Path]) -> None:
    hub.faults({"path": "/tag/", "delay": 60.0})
    first = hub.start("publish", str(versions[0]), "--repo", REPO)
    hub.wait_until_held()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    hub.faults()
    assert "v1.0.0" not in tags(hub)
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    assert commits(hub) == ["Release 1.0.0", "initial commit"]
    assert "v1.0.0" in tags(hub)


def test_private_and_gated_are_what_they_say(hub: Any, versions: tuple[Path, Path]) -> None:
    assert hub.run("publish", str(versions[0]), "--repo", REPO, "--private", "--gated").returncode == 0
    stranger = hub.run("pull", f"{REPO}@v1.0.0", token="hf_carol")
    assert (stranger.returncode, "There is no dataset acme/safe" in stranger.stderr) == (2, True)
    assert hub.run("publish", str(versions[0]), "--repo", "acme/gated", "--gated").returncode == 0
    gated = hub.run("pull", "acme/gated", token="hf_carol")
    assert (gated.returncode, "acme/gated is gated" in gated.stderr) == (2, True)
    public = hub.run("publish", str(versions[0]), "--repo", "acme/gated", "--private")
    assert (public.returncode, "is public already" in public.stderr) == (2, True)


def test_a_pull_is_checked_and_knows_what_it_is(hub: Any, versions: tuple[Path, Path]) -> None:
    for folder in versions:
        hub.run("publish", str(folder), "--repo", REPO)
    done = hub.run("pull", f"{REPO}@1.0.0", token=None)
    assert done.returncode == 0, done.stderr
    folder = hub.home / "safe-1.0.0"
    ours = {path.relative_to(versions[0]): path.read_bytes() for path in versions[0].rglob("*") if path.is_file()}
    theirs = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    record = json.loads(theirs.pop(Path(".cache/saferthoughts.json")))
    assert theirs == ours
    assert record["revision"] == "v1.0.0"
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
    for address, told in (
        ("acme/foreign", "acme/foreign@main holds no release of SaferThoughts"),
        (f"{REPO}@v9.0.0", "Unknown version of acme/safe 'v9.0.0'"),
        ("acme/none", "There is no dataset acme/none"),
        ("nowhere", "neither a release folder nor a repository"),
    ):
        done = hub.run("pull", address)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    hub.faults({"path": "/resolve/", "method": "GET", "status": 500, "times": 99, "skip": 8})
    assert hub.run("pull", REPO, "--to", "mine").returncode == 2
    assert {path.name for path in hub.home.iterdir() if path.name[0] != "."} <= {"root", "url", "cache", "hf"}
    hub.faults()
    hub.log()
    assert hub.run("pull", REPO, "--to", "mine").returncode == 0
    fetched = {entry[1] for entry in hub.log() if entry[0] == "GET" and "/resolve/" in entry[1]}
    assert len(fetched) < len([path for path in versions[0].rglob("*") if path.is_file()])


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
