"""What goes wrong while a release is published: each fault of the Hub, the network, the machine, and other people."""

import hashlib
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cards.conftest import REPO, commits, tags

# Each publishing meets all of one group.
PASSING: dict[str, list[dict[str, Any]]] = {
    "errors at every step": [
        {"path": "^/_large/", "method": "PUT", "status": 500},
        {"path": "/commit/main$", "status": 500},
        {"path": "/tag/", "status": 503, "times": 2},
        {"path": "/tree/", "method": "GET", "status": 502, "skip": 2},
    ],
    "429 with Retry-After and 408 at the tag": [
        {"path": "/commit/main$", "status": 429, "headers": {"Retry-After": "1"}},
        {"path": "/tag/", "status": 408},
    ],
    "429 with a date gone by": [
        {"path": "/commit/main$", "status": 429, "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}}
    ],
    "cut before the commit, and a slow tag": [
        {"path": "/commit/main$", "cut": True},
        {"path": "/tag/", "delay": 2.0},
    ],
    "cut after the commit and after the tag": [
        {"path": "/commit/main$", "cut": True, "after": True},
        {"path": "/tag/", "cut": True, "after": True},
    ],
    "500 after the commit landed": [{"path": "/commit/main$", "status": 500, "after": True}],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_what_passes_is_lived_through_and_nothing_is_made_twice(
    hub: Any, versions: tuple[Path, Path], faults: list[dict[str, Any]]
) -> None:
    hub.faults(*faults)
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    met = [(path, status) for _, path, status in hub.log()]
    for fault in faults:
        # What is only slow answers as ever.
        status = 0 if fault.get("cut") else fault.get("status", 200)
        count = sum(bool(re.search(fault["path"], path)) and found == status for path, found in met)
        assert count == fault.get("times", 1), fault
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


@pytest.mark.parametrize(("fault", "expected"), LASTING.values(), ids=LASTING)
def test_what_lasts_is_told_in_a_line_and_going_on_works(
    hub: Any, versions: tuple[Path, Path], fault: dict[str, Any], expected: str
) -> None:
    hub.faults({**fault, "times": 99})
    done = hub.run("publish", str(versions[0]), "--repo", REPO)
    assert done.returncode == 2, done.stdout
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    hub.faults()
    if fault["path"] == "/commit/main$" and fault["status"] != 403:
        # Nothing landed, as after 403.
        assert commits(hub) == ["initial commit"]
        return
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


def test_a_hub_that_is_down_is_told(hub: Any, versions: tuple[Path, Path]) -> None:
    done = hub.run("publish", str(versions[0]), "--repo", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "http://127.0.0.1:9 does not answer" in done.stderr


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
    _, output = ours.communicate(timeout=300)
    assert ours.returncode == 2, output
    assert "Somebody else pushed to acme/safe" in output
    assert "'notes of mine' by bob" in output
    assert "v1.1.0" not in tags(hub)


def test_of_six_at_once_one_wins_and_five_are_told(hub: Any, versions: tuple[Path, Path], tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(versions[0], tmp_path / f"racer{number}")) for number in range(6)]
    for number, folder in enumerate(folders):
        plot, sums = folder / "plots" / "lengths.svg", folder / "checksums.sha256"
        before = hashlib.sha256(plot.read_bytes()).hexdigest()
        plot.write_text(f"{plot.read_text(encoding='utf-8')}<!-- {number} -->", encoding="utf-8")
        sums.write_text(sums.read_text().replace(before, hashlib.sha256(plot.read_bytes()).hexdigest()))
    racers = [hub.start("publish", str(folder), "--repo", REPO) for folder in folders]
    ends = [(racer.communicate(timeout=500), racer.returncode) for racer in racers]
    assert sorted(code for _, code in ends) == [0, 2, 2, 2, 2, 2], ends
    for (_, output), code in ends:
        assert code == 0 or "Somebody else pushed" in output or "with another content" in output, output
        assert "Traceback" not in output
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
