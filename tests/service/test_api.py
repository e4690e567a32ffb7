"""The API over HTTP: a run from POST to release.zip, its rows, and problems in the command line's words."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from cards.verify import verify
from pipelines.prompts.mildness import severity
from pipelines.settings.teacher import load_teachers
from pipelines.teachers.ledger import Ledger
from tests.commands import command
from tests.service.conftest import RESPONSES, Service, typed


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a problem document of that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    return str(body["detail"])


def test_a_run_goes_from_post_to_a_release_that_verifies(service: Service, tmp_path: Path) -> None:
    state = service.get("/runs/small")
    assert state["job"]["state"] == "done"
    assert (state["job"]["exit_code"], state["job"]["attempts"]) == (0, 1)
    counts = {step["name"]: step["count"] for step in state["funnel"]}
    manifest = json.loads((service.runs / "small" / "manifest.json").read_text())["stages"]
    assert counts["prompts"] == 7
    assert counts["responses"] == RESPONSES
    assert counts["released"] == sum(manifest["release"]["rows"].values()) > 0
    ledger = Ledger(service.runs / "small" / "ledger.sqlite")
    totals = ledger.totals()
    ledger.close()
    assert (state["answers"], state["failures"]) == (totals.answers, 0)
    assert state["rehearsal"] is True
    with service.client("read") as client:
        answer = client.get("/runs/small/release.zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    assert verify(tmp_path / f"small-{state['version']}").faults == ()


def test_rows_page_and_filter_as_the_tables_have_them(service: Service) -> None:
    table = pq.read_table(service.runs / "small" / "responses.parquet")
    rows = {row["response_id"]: row for row in table.to_pylist()}
    found: list[dict[str, Any]] = []
    while True:
        page = service.get("/runs/small/rows", limit=4, offset=len(found), texts=True)
        assert page["total"] == len(rows)
        if not page["rows"]:
            break
        found += page["rows"]
    assert sorted(row["response_id"] for row in found) == sorted(rows)
    # Mild ones first, and by their ids among their like.
    order = [(severity(row["category"], row["kind"]), row["response_id"]) for row in found]
    assert order == sorted(order)
    assert found[0]["kind"] == "benign"
    assert all(row["answer"] == rows[row["response_id"]]["answer"] for row in found)
    assert all(row["reasoning"] == rows[row["response_id"]]["reasoning"] for row in found)
    asked = {"where": ["variant:eq:short", "outcome:eq:accepted", "output_tokens:gt:1"]}
    fits = service.get("/runs/small/rows", **asked)["rows"]
    wanted = [row for row in found if row["variant"] == "short" and row["outcome"] == "accepted"]
    assert [row["response_id"] for row in fits] == [row["response_id"] for row in wanted if row["output_tokens"] > 1]
    assert fits
    flagged = service.get("/runs/small/rows", where="patterns:ge:1")["rows"]
    assert {row["response_id"] for row in flagged} == {row["response_id"] for row in found if row["patterns"]}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("varient:eq:short", "Unknown column 'varient'. Did you mean 'variant'?"),
        ("variant:like:%", "Unknown operator 'like'. Did you mean 'le'? Choose from: eq, ne"),
        ("variant = 'short' --", "where takes column:op:value"),
        ("attempt:eq:1 OR 1=1", "attempt is compared with a whole number, not with '1 OR 1=1'"),
        ("refused:eq:maybe", "refused is compared with true or false"),
        ("cost:gt:inf", "cost is compared with a number"),
    ],
)
def test_a_filter_that_does_not_fit_is_told(service: Service, where: str, expected: str) -> None:
    with service.client("read") as client:
        assert expected in problem(client.get("/runs/small/rows", params={"where": where}), 422)


def test_a_filter_value_is_never_sql(service: Service) -> None:
    value = "short' OR '1'='1'; DROP TABLE rows; --"
    assert service.get("/runs/small/rows", where=f"variant:eq:{value}") == {"total": 0, "offset": 0, "rows": []}
    assert service.get("/runs/small/rows")["total"] >= RESPONSES


def test_report_is_sandboxed_and_has_its_figures_as_json(service: Service) -> None:
    with service.client("read") as client:
        answer = client.get("/runs/small/report")
    assert "sandbox allow-scripts; default-src 'none'" in answer.headers["content-security-policy"]
    assert "Run small" in answer.text
    assert service.get("/runs/small/report", format="json")["run"] == "small"


def test_bad_requests_have_the_command_lines_words(service: Service, tmp_path: Path) -> None:
    done = command(typed(tmp_path, "prompts", "x", "--variant", "shrot"))
    words = done.stderr.removeprefix("saferthoughts: ").strip()
    answer = service.post("/runs", {"name": "x", "config": {"variants": ["shrot"]}})
    assert problem(answer, 422) == words
    assert not (service.runs / "x").exists()
    assert "Unknown run under" in problem(service.post("/runs/smal/cancel"), 404)
    assert "no job that could be cancelled" in problem(service.post("/runs/small/cancel"), 409)
    assert "There is a run 'small'" in problem(service.post("/runs", {"name": "small"}), 409)
    assert "prompts.harmful" in problem(
        service.post("/runs", {"name": "y", "config": {"prompts": {"harmful": -1}}}), 422
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "Who answers? No teacher is named."),
        ({"prompts": {"source": "/etc/passwd"}}, "Unknown prompt set '/etc/passwd'. Choose from: bundled"),
        ({"prompts": {"source": "../small"}}, "Unknown prompt set '../small'"),
        ({"roles": {"reasoning": "http://127.0.0.1:9/v1"}}, "Unknown teacher 'http://127.0.0.1:9/v1'"),
        ({"teachers": {"x": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}}, "teachers: Extra inputs"),
        ({"judges": {"x": {"kind": "safety", "form": "template"}}}, "judges: Extra inputs"),
        ({"checks": {"folder": "/etc"}}, "checks: Extra inputs"),
        ({"instructions": {"short": "{{ x }}"}}, "instructions: Extra inputs"),
    ],
)
def test_no_path_address_or_template_of_a_request_is_taken(
    service: Service, config: dict[str, Any], expected: str
) -> None:
    assert expected in problem(service.post("/runs", {"name": "x", "config": config}), 422)
    assert not (service.runs / "x").exists()


def test_estimate_counts_requests_and_goes_by_earlier_answers(service: Service) -> None:
    roles = {"roles": {"reasoning": "rehearsal"}}
    wished = {"prompts": {"harmful": 10, "benign": 5}, "variants": ["short", "nocot"], **roles}
    known = service.post("/estimate", wished, "read")
    assert known.json()["requests"] == 15
    answers = pq.read_table(service.runs / "small" / "responses.parquet").to_pylist()
    mean = {
        name: [
            row["input_tokens"] + row["output_tokens"]
            for row in answers
            if (row["variant"], row["attempt"]) == (name, 0)
        ]
        for name in ("short", "direct")
    }
    wanted = 10 * sum(mean["short"]) / len(mean["short"]) + 5 * sum(mean["direct"]) / len(mean["direct"])
    assert known.json()["tokens"] == pytest.approx(wanted)
    fresh = {"variants": ["template"], "prompts": {"harmful": 10, "benign": 0}, **roles}
    unknown = service.post("/estimate", fresh, "read")
    assert (unknown.json()["requests"], unknown.json()["tokens"]) == (10, None)
    assert "not known" in unknown.json()["message"]


def test_teachers_tell_neither_address_nor_key(service: Service) -> None:
    with service.client("read") as client:
        answer = client.get("/teachers")
    listed = {entry["name"]: entry for entry in answer.json()}
    assert set(listed) == set(load_teachers())
    assert listed["deepseek"]["key"] in ("set", "missing")
    assert "http" not in answer.text
    assert "API_KEY" not in answer.text
    tested = service.post("/teachers/rehearsal/test").json()
    assert tested["test"]["answers"] is True
    assert "rehearsal-r1 answered in" in tested["test"]["message"]
    failed = service.post("/teachers/llama-cpp/test").json()["test"]
    assert failed["answers"] is False
    assert "No server answers at its endpoint" in failed["message"]
    again = {entry["name"]: entry for entry in service.get("/teachers")}
    assert again["llama-cpp"]["test"] == failed


def test_one_release_is_made_again_and_published_only_where_there_is_one(service: Service) -> None:
    detail = problem(service.post("/runs/small/publish", {"repo": "me/../x"}, "publish"), 422)
    assert "body.repo" in detail
    taken = service.post("/regenerate", {"release": "small", "name": "small", "teacher": "rehearsal"})
    assert "Give the new one another name" in problem(taken, 409)
    assert "Unknown teacher 'nobody'" in problem(
        service.post("/regenerate", {"release": "small", "name": "again", "teacher": "nobody"}), 422
    )
    assert "Argilla" in problem(service.post("/runs/small/review"), 409)
    version = service.post("/runs/small/release", {"version": "1.2.0"})
    assert version.status_code == 202
    assert service.until_over("small")["version"] == "1.2.0"
