"""`pull` against a Hub whose repository attacks: refused by name before a byte of it lands, and nothing is left."""

from typing import Any

import pytest

REPO = "acme/theirs"
UPLOAD = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
api.create_repo(sys.argv[1], repo_type="dataset", exist_ok=True)
files = [CommitOperationAdd("lineage.json", b"{}")]
attack = CommitOperationAdd("x", b"import os; os.system('touch HIT')")
attack.path_in_repo = sys.argv[2]  # past the client's own check, as an attacker's client would be
files.append(attack)
api.create_commit(sys.argv[1], files, commit_message="theirs", repo_type="dataset")
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("theirs.py", "theirs.py is a program"),
        ("data/cache.pkl", "data/cache.pkl is a pickle"),
        (".cache/huggingface/x.json", "is for what a download leaves"),
        ("hooks/post-checkout", "git's own folder"),
        ("CON.json", "on other systems"),
        ("a\\b.json", "a backslash"),
        ("NOTES.txt", "is no release folder|is not a release's"),
    ],
)
def test_a_hostile_repository_is_refused_and_leaves_nothing(hub: Any, name: str, expected: str) -> None:
    hub.python(UPLOAD, REPO, name)
    hub.log()
    done = hub.run("pull", f"{REPO}@main", "--to", "here")
    assert done.returncode == 2, done.stderr
    line = " ".join(done.stderr.split())
    assert any(word in line for word in expected.split("|")), line
    assert "Traceback" not in done.stderr
    fetched = [path for method, path, _ in hub.log() if "/resolve/" in path]
    assert not fetched or name == "NOTES.txt"
    assert [path.name for path in hub.home.iterdir() if "here" in path.name or path.name == "HIT"] == []
