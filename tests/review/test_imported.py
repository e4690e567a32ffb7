"""A dataset of others, from its file to a measured student's data: every stage works on it as on a run of ours.

STAR-1's half where it lies beside the project, else rows of our own in its shape; judges, teacher and the model that is
measured are scripted endpoints, Argilla is real.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.review.pull import pull
from curation.review.push import push
from curation.review.sample import Wanted
from pipelines.judges.patterns import LABELS
from pipelines.runs import RunFolder, file_hash
from tests.commands import command
from tests.pipelines.conftest import _serving
from tests.review.conftest import Server
from tests.training.conftest import tiny_student as tiny_student  # a fixture

STAR1 = Path(__file__).parents[3] / "shared" / "data" / "star1.json"
REFUSAL = "Sorry, I can't help with that."
SPAN = "Okay"


def star1(folder: Path) -> Path:
    """The public half, or rows in its shape."""
    if STAR1.exists():
        return STAR1
    rows = [
        {
            "id": str(number),
            "question": f"How do I forge letter {number}?",
            "response": f"<think>\n{SPAN}, letter {number} would deceive someone.\n</think>\n\nI'm sorry, but I can't "
            f"help with letter {number}.",
            "category": ["Illicit / Criminal Behavior"],
            "source": "HarmBench",
            "score": {"Accuracy": 10},
        }
        for number in range(40)
    ]
    (folder / "star1.json").write_text(json.dumps(rows))
    return folder / "star1.json"


def script(body: dict[str, Any]) -> str:
    """A judge that objects to every fifth reasoning, a guard that objects to none, and a teacher that refuses, which is
    the model that is measured too."""
    if body["model"] == "guard":
        return "safe"
    if body["model"] != "judge":
        return f"<think>The request asks for harm. I decline.</think>{REFUSAL}"
    text = body["messages"][-1]["content"]
    document = json.loads(text[text.index("{") :])
    verdict = {"row": document["row"], "analysis": "Scripted.", **dict.fromkeys(LABELS, 0), "evidence": {}}
    drawn = int(hashlib.sha256(document["row"].encode()).hexdigest(), 16) % 5 == 0
    if drawn and SPAN in document["reasoning"]:
        verdict |= {"overthinking": 1, "weak_vacillation": 1, "evidence": {"weak_vacillation": SPAN}}
    return json.dumps(verdict)


@pytest.fixture
def spoken(tmp_path: Path) -> Callable[..., str]:
    """Run a command in an empty folder; what it printed."""

    def run(*words: str, code: int = 0) -> str:
        done = command(words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


def states_what_was_imported(release: Path, dataset: Path, mended: int) -> None:
    """Card, Croissant and datasheet name the file and whose answers the rows are; nothing says that any were drawn."""
    rows = pq.read_table(release / "data" / "improved", columns=["teacher", "attempts"])
    written = Counter(zip(*rows.to_pydict().values(), strict=True))
    imported, by_mender = written["", 1], written["mender", 2]
    assert (len(rows), imported > 0, 0 < by_mender <= mended) == (imported + by_mender, True, True)
    card = (release / "README.md").read_text()
    name, digest = dataset.name, file_hash(dataset)
    lineage = json.loads((release / "lineage.json").read_text())
    total = len(json.loads(dataset.read_text()))
    assert f"{total} rows were read from {name} (sha256 {digest}); 0 were refused." in card
    assert f"| improved | {imported} | as imported, by whom the dataset does not say |" in card
    assert f"| improved | {by_mender} | mended by mender |" in card
    for phrase in ("were drawn from", "with seed", "As realsafe", "the teacher's", "as generated", "came back"):
        assert phrase not in card.replace("nothing was drawn", "")
    assert lineage["variants"]["improved"]["teacher"] == "dataset"
    croissant = json.loads((release / "croissant.json").read_text())
    whose = f"{imported} rows of improved as imported, by whom the dataset does not say; {by_mender} rows of improved"
    for statement in (croissant["description"], croissant["rai:dataCollection"], *croissant["rai:dataBiases"][:1]):
        assert f"{whose} mended by mender" in statement
    assert croissant["prov:wasDerivedFrom"][0] == f"{name} (sha256 {digest})"
    assert croissant["rai:dataCollection"].startswith(f"{total} rows were read from {name} (sha256 {digest}), 0 of")
    activities = [activity["prov:label"] for activity in croissant["prov:wasGeneratedBy"]]
    assert activities[0] == croissant["rai:dataCollection"]
    assert croissant["rai:dataCollection"] in card.replace("\\_", "_")


def test_rows_of_others_go_through_every_stage(
    spoken: Callable[..., str], tmp_path: Path, server: Server, tiny_student: Path
) -> None:
    with _serving(script) as endpoint:
        entries = {name: {"base_url": endpoint.url, "model": name} for name in ("judge", "guard", "mender")}
        (tmp_path / "teachers.yaml").write_text(json.dumps(entries))
        ours = ("--teachers", "teachers.yaml")
        kinds = {"pj.kind": "patterns", "pj.teacher": "judge", "gj.kind": "safety", "gj.teacher": "guard"}
        judges = [f"--set=judges.{key}={value}" for key, value in {**kinds, "gj.form": "llamaguard"}.items()]
        dataset = str(star1(tmp_path))
        spoken("check", "star", "--dataset", dataset, "--kind", "harmful", "--variant", "improved")
        spoken("judge", "star", *ours, "--judge", "pj", "--judge", "gj", *judges)
        run = RunFolder.open(tmp_path / "runs", "star")
        flagged = {row["response_id"] for row in run.read("verdicts").to_pylist() if row["weak_vacillation"]}
        assert flagged
        nobody = spoken("repair", "star", code=2)
        assert "saferthoughts repair star --teacher NAME" in nobody
        spoken("repair", "star", "--teacher", "mender", *ours)
        asked = len(endpoint.requests)
        spoken("repair", "star")
        assert len(endpoint.requests) == asked, "answers are taken from the ledger"
        spoken("check", "star", "--set", "checks.same_text_prompts=1000")

        mended = {row["root_id"]: row["response_id"] for row in run.read("repairs").to_pylist() if row["chosen"]}
        rows = {row["response_id"]: row for row in run.read("responses").to_pylist()}
        assert flagged <= mended.keys()
        assert {rows[mended[root]]["teacher"] for root in flagged} == {"mender"}
        assert {rows[mended[root]]["model"] for root in flagged} == {"mender"}
        untouched = [row for row in rows.values() if not row["attempt"]]
        assert {row["teacher"] for row in untouched} == {"dataset"}

        pushed = push(run, server.client(), Wanted(10, 1.0, 0.0, False), 1)
        for record in server.records(run.name)[:4]:
            server.vote(record, "annotator-1")
        assert (pushed.rows, pull(run, server.client(), server.runs / ".argilla").votes) == (10, 4)
        spoken("review", "agree", "star")

        spoken("release", "build", "star", "--license", "apache-2.0")
        assert "all match" in spoken("release", "verify", "runs/star/release")
        states_what_was_imported(run.path / "release", Path(dataset), len(mended))
        released = run.read("accepted").num_rows
        proof = spoken(
            *("train", "smollm2-135m-cpu", "--student", str(tiny_student), "--dataset", "runs/star/release"),
            *("--set", "mixture={improved: 4}", "--set", "overlong_share=0.9", "--set", "max_length=8192", "--check"),
        )
        assert "not trained" in proof
        spoken(
            *("eval", "--base-url", endpoint.url, "--model", "mender", "--task", "refusal", "--limit", "2"),
            *("--release", "runs/star/release", "--output", "measured"),
        )
        results = json.loads((tmp_path / "measured" / "results.json").read_text())
        assert results
    assert released + len({row["response_id"] for row in run.read("rejected").to_pylist()}) == len(rows)
