"""A finished model to the Hub over HTTP: one commit with what serving needs, read back; nothing of others is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from cards.hub.push_model import _may_not_create

REPO = "acme/student"
PUSH = """
import sys
from pathlib import Path
from cards.hub.push_model import push_model
done = push_model(Path(sys.argv[1]), sys.argv[2], private=len(sys.argv) > 3)
print(done.commit, done.fresh)
"""
CHECK = """
import sys
from cards.hub.push_model import check_pushable
from pipelines.errors import UserError
for repo in sys.argv[1:]:
    try:
        check_pushable(repo)
        print("may go")
    except UserError as error:
        print(error)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as training leaves it, weights of a few bytes, with an evaluation's logs beside them."""
    folder = tmp_path / "student"
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "eval" / "logs").mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"student": {"model": "SmolLM2"}}))
    (folder / "README.md").write_text("---\ntags: [saferthoughts]\n---\n# student\n")
    (folder / "model.safetensors").write_bytes(b"\0" * 5000)
    (folder / "tensorboard" / "events").write_bytes(b"losses")
    (folder / "eval" / "logs" / "none.eval").write_bytes(b"questions and answers")
    return folder


def files(hub: Any) -> list[str]:
    return [item["path"] for item in hub.get(f"/api/models/{REPO}/tree/main?recursive=true") if item["type"] == "file"]


def test_a_model_is_one_commit_without_an_evaluations_logs(hub: Any, model: Path) -> None:
    commit, fresh = hub.python(PUSH, str(model), REPO).split()
    assert fresh == "True"
    titles = [entry["title"] for entry in hub.get(f"/api/models/{REPO}/commits/main")]
    assert titles == ["student, trained from SmolLM2", "initial commit"]
    wanted = ["README.md", "model.safetensors", "tensorboard/events", "training.json"]
    assert [name for name in files(hub) if name != ".gitattributes"] == wanted
    assert hub.python(PUSH, str(model), REPO).split() == [commit, "False"]
    (model / "README.md").write_text("---\ntags: [saferthoughts]\n---\n# student, measured\n")
    later, fresh = hub.python(PUSH, str(model), REPO).split()
    assert (fresh, later != commit) == ("True", True)


def test_a_repository_of_something_else_is_left_alone(hub: Any, model: Path) -> None:
    hub.python(PUSH, str(model), REPO)
    there = "import huggingface_hub as h; h.HfApi().delete_file('training.json', 'acme/student')"
    hub.python(there)
    before = hub.get(f"/api/models/{REPO}/commits/main")
    assert "holds files that are no model of this project" in hub.python(CHECK, REPO)
    assert hub.get(f"/api/models/{REPO}/commits/main") == before
    assert hub.python(CHECK, "acme/new").strip() == "may go"


def test_whether_it_may_be_pushed_is_told_before_it_is_trained(hub: Any) -> None:
    (hub.home / "release").mkdir()
    words = ["train", "smollm2-135m-cpu", "--dataset", "release", "--output", "model", "--push", "acme/student"]
    done = hub.run(*words, token="hf_wrong")
    assert done.returncode == 2
    assert "The Hub does not accept the token" in done.stderr
    assert "There is no token for the Hub" in hub.run(*words, token=None).stderr
    assert not (hub.home / "model").exists()


def test_the_right_to_push_is_asked_for(hub: Any) -> None:
    hub.python("import huggingface_hub as h; h.HfApi().create_repo('acme/there')")
    reads = hub.python(CHECK, "acme/there", "acme/new", token="hf_carol").splitlines()
    assert "The token may not do this in acme/there" in reads[0]
    assert "The token may only read, so acme/new cannot be made." in reads[1]
    writes = hub.python(CHECK, "acme/there", "acme/new", "globex/new").splitlines()
    assert writes[:2] == ["may go", "may go"]
    assert "alice may not write to globex, so globex/new cannot be made." in writes[2]


@pytest.mark.parametrize("scoped", [[], ["repo.content.read"], ["repo.write"]])
def test_a_fine_grained_token_has_to_write_to_the_owner(scoped: list[str]) -> None:
    token = {"role": "fineGrained", "fineGrained": {"scoped": [{"entity": {"name": "acme"}, "permissions": scoped}]}}
    who = {"name": "alice", "orgs": [{"name": "acme"}], "auth": {"accessToken": token}}
    assert (_may_not_create(who, REPO) is None) == (scoped == ["repo.write"])
    assert _may_not_create(who, "alice/student") is not None
