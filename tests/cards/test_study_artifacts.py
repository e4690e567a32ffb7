"""Steps of a study kept on the Hub: another machine takes what is done and does the rest."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from pipelines.errors import Incomplete, UserError
from saferthoughts.studies import work
from tests.cards.conftest import TestHub
from tests.training.test_study import Job, invoked

RUN = {"teacher": "rehearsal", "variant": ["direct"], "judge": ["rehearsal-judge"], "harmful": 4, "benign": 0}
PLACE = "hub:acme/steps"
# Between the Hub's client and its HTTP client; a user's commands do not fail for it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def began(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has this process ask the Hub of the tests; gives the steps that began."""
    monkeypatch.setattr("cards.hub.hub.HfApi", partial(HfApi, endpoint=hub.url))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    names: list[str] = []

    def handle(cluster: Any, step: Any, runs: Path, *_: Any) -> Job:
        names.append(step.labels["run"])
        return Job(step, runs)

    monkeypatch.setattr(work, "_handle", handle)
    return names


def run(machine: Path, runs: dict[str, Any], *words: str, command: str = "run") -> str:
    machine.mkdir(exist_ok=True)
    (machine / "s.yaml").write_text(yaml.safe_dump({"runs": runs}))
    return invoked("--runs", str(machine / "runs"), "study", command, str(machine / "s.yaml"), *words)


def test_another_machine_takes_what_is_done_and_does_the_rest(hub: TestHub, began: list[str], tmp_path: Path) -> None:
    runs = {"first": RUN, "second": {**RUN, "harmful": 5, "reuse": "first", "queries": {"Patterns": "patterns"}}}
    assert "2 steps, 2 to do" in run(tmp_path / "one", runs, "--artifacts", PLACE, command="plan")
    assert not [line for line in hub.log() if line[0] == "POST"]
    hub.faults({"method": "POST", "path": "/commit/main", "after": True, "status": 503})
    printed = run(tmp_path / "one", runs, "--artifacts", PLACE)
    assert printed.count(f"kept at {PLACE}") == 2
    assert began == ["first", "second"]
    there = {entry["path"] for entry in hub.get("/api/datasets/acme/steps/tree/main?recursive=true")}
    assert hub.get("/api/datasets/acme/steps")["private"]
    assert not [path for path in there if "lock" in path or "log.txt" in path or path.endswith(".sh")]
    # Where nothing is to do, nothing is brought but what the report shows.
    assert "2 steps, 0 to do" in run(tmp_path / "two", runs, "--artifacts", PLACE, command="plan")
    again = run(tmp_path / "two", runs, "--artifacts", PLACE)
    assert "data second: taken from" in again
    assert "Patterns" in again
    assert began == ["first", "second"]
    assert len(list((tmp_path / "two" / "runs").iterdir())) == 1
    assert "1 elsewhere, 1 done of 2 steps" in run(tmp_path / "two", runs, command="status")
    # A step that is new needs the run whose answers it takes over: that comes with its ledger. What cannot be sent is
    # sent by the same command later.
    more = {"first": RUN, "third": {**RUN, "harmful": 6, "reuse": "first", "queries": {"Patterns": "patterns"}}}
    hub.faults({"method": "POST", "path": "/commit/main", "status": 403})
    with pytest.raises(Incomplete, match="All is done here, and 1 steps are not kept"):
        run(tmp_path / "two", more, "--artifacts", PLACE)
    assert "data third: kept at" in run(tmp_path / "two", more, "--artifacts", PLACE)
    assert began == ["first", "second", "third"]
    one, two = (next((tmp_path / name / "runs").glob("study-first-*")) for name in ("one", "two"))
    for name in ("responses.parquet", "ledger.sqlite"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    # What is not as it was sent is not taken.
    upload = (
        "import sys, huggingface_hub as h; h.HfApi().upload_file(path_or_fileobj=sys.argv[2].encode(), "
        "path_in_repo=sys.argv[1], repo_id='acme/steps', repo_type='dataset')"
    )
    (name,) = {path.parent.name for path in (tmp_path / "two").glob("studies/steps/data-third-*/step.json")}
    hub.python(upload, f"{name}/step.json", json.dumps({"state": "failed"}))
    with pytest.raises(UserError, match="otherwise than it was sent"):
        run(tmp_path / "three", more, "--artifacts", PLACE)
    hub.python(upload, f"{name}/step/model.pkl", "x")
    with pytest.raises(UserError, match=r"is not taken from .*model\.pkl is a pickle"):
        run(tmp_path / "three", more, "--artifacts", PLACE)
    assert not list((tmp_path / "three").glob("studies/steps/data-third*/step.json"))
    for words, why in (("acme/steps", "is hub:ORG/NAME, not 'acme/steps'"), ("hub:bob/x", "may not do this")):
        with pytest.raises(UserError, match=why):
            run(tmp_path / "three", more, "--artifacts", words)
