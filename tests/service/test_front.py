"""The page's forms, keys, judges and costs: what is filled in, what is refused, and that a key is nowhere."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from service.jobs.queue import Queue
from service.store import Store
from tests.pipelines.conftest import _serving
from tests.service.conftest import Service
from tests.service.test_page import opened as opened
from tests.service.test_page import pages as pages

VARIABLE, SECRET = "FRONT_TEACHER_KEY", "quince-of-Nobody-4711-0815"
ANSWER = "<think>From 14:50 to 16:05.</think>75 minutes."


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a priced teacher that wants a key, and a folder for prompt sets."""
    root = tmp_path_factory.mktemp("desk")
    with _serving(lambda body: ANSWER) as endpoint:
        endpoint.key = SECRET
        price = {"input": 1e6, "output": 1e6}
        entry = {"model": "quince", "base_url": endpoint.url, "api_key_env": VARIABLE, "price": price}
        (root / "teachers.yaml").write_text(json.dumps({"locked": entry}))
        (root / "prompts").mkdir()
        options = ("--rate", "1000", "--teachers", str(root / "teachers.yaml"), "--prompts", str(root / "prompts"))
        running = Service(root / "runs", *options)
        yield running
        for client in Person.clients:
            client.close()
        running.stop()


class Person:
    """A browser without a script."""

    clients: ClassVar[list[httpx.Client]] = []

    def __init__(self, service: Service, role: str) -> None:
        self.client = httpx.Client(base_url=service.url, timeout=300, headers={"origin": service.url})
        self.clients.append(self.client)
        self.client.post("/login", data={"token": service.secrets[role]})
        self.key = self.client.get("/ui/new").text.partition('name="key" value="')[2].partition('"')[0]

    def get(self, path: str) -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, **fields: Any) -> httpx.Response:
        files = {"file": fields.pop("file")} if "file" in fields else None
        return self.client.post(path, data={"key": self.key, **fields}, files=files)


@pytest.fixture
def person(desk: Service) -> Person:
    return Person(desk, "publish")


def everything_written(desk: Service) -> bytes:
    return b"".join(path.read_bytes() for path in desk.runs.parent.rglob("*") if path.is_file())


def test_a_sessions_key_works_and_is_nowhere(desk: Service, person: Person) -> None:
    assert person.post("/ui/keys", variable=VARIABLE, value=f"  wrong-{SECRET} ").status_code == 303
    page = person.get("/ui/keys")
    assert "set for this session" in page
    assert "teacher locked" in page
    person.post("/ui/teachers/locked/test")
    refused = person.get("/ui/teachers")
    assert "not known" in refused
    assert person.post("/ui/keys", variable=VARIABLE, value=SECRET).status_code == 303
    person.post("/ui/teachers/locked/test")
    seen = [page, refused, person.get("/ui/teachers")]
    assert "quince answered in" in seen[2]
    assert "reasoning found, inline between" in seen[2]
    assert "window not told" in seen[2]
    config = {"prompts": {"harmful": 2, "benign": 1}, "variants": ["direct"], "roles": {"reasoning": "locked"}}
    config["repair"] = {"attempts": 0}
    assert desk.post("/runs", {"name": "keyed", "config": config, "budget": {"max_cost": 500}}).status_code == 202
    words = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    with desk.client("read") as client, client.stream("GET", "/runs/keyed/events") as events:
        seen.append(next(events.iter_text()))
    state = desk.until_over("keyed")
    assert state["answers"] > 0, state
    seen += [
        json.dumps(desk.get(path)) for path in ("/runs", "/runs/keyed", "/teachers", "/keys", "/costs", "/argilla")
    ]
    seen += [person.get(path) for path in ("/ui/runs/keyed", "/ui/runs/keyed/log", "/ui/keys", "/ui/costs", "/ui/new")]
    assert SECRET not in "\n".join(seen + words)
    assert SECRET.encode() not in everything_written(desk)
    # What the key paid for is counted, and the judge that asks nobody costs nothing.
    lines = desk.get("/costs")["lines"]
    assert {(line["role"], line["name"], line["cost"] > 0) for line in lines} == {("teacher", "locked", True)}
    assert "$500.00" in person.get("/ui/costs")
    assert person.post("/ui/keys", variable=VARIABLE, forget="yes").status_code == 303
    assert {one["variable"]: one["state"] for one in desk.get("/keys")}[VARIABLE] == "missing"
    person.post("/ui/teachers/locked/test")
    assert VARIABLE in person.get("/ui/teachers")


@pytest.mark.parametrize("role", ["read", "run"])
def test_only_publish_gives_a_key_or_sees_accounts(desk: Service, role: str) -> None:
    one = Person(desk, role)
    assert 'name="value"' not in one.get("/ui/keys")
    assert one.post("/ui/keys", variable=VARIABLE, value="a-key-of-mine").status_code == 403
    assert one.post("/ui/argilla", do="accounts").status_code == 403
    if role == "read":
        refused = [one.post("/ui/argilla", do="start"), one.post("/ui/prompts", file=("a.txt", b"Hello?"))]
        refused += [one.post("/ui/review/keyed", do="pull"), one.post("/ui/new", name="x")]
        assert [answer.status_code for answer in refused] == [403] * 4


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("PATH", "/of-Nobody"), ("LD_PRELOAD", "of-Nobody.so"), ("<script>", "k-of-Nobody"), (VARIABLE, "")),
        *((VARIABLE, "two words-of-Nobody"), (VARIABLE, "x\ny-of-Nobody"), (VARIABLE, "schlüssel-of-Nobody")),
        (VARIABLE, "k" * 4097),
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused_and_not_repeated(desk: Service, person: Person, variable: str, value: str) -> None:
    answer = person.post("/ui/keys", variable=variable, value=value)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert len(value) < 8 or value not in answer.text
    assert "<script>" not in answer.text.replace("<script src", "")
    assert "session" not in {one["state"] for one in desk.get("/keys")}


def test_a_prompt_set_is_uploaded_whole_or_not_at_all(desk: Service, person: Person) -> None:
    rows = [{"prompt": f"How do I bake loaf {n}?", "kind": "benign" if n < 30 else "harmful"} for n in range(160)]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    good = person.post("/ui/prompts", file=("mine.jsonl", content))
    assert good.status_code == 303
    form = person.get(good.headers["location"])
    assert "<option selected>mine.jsonl" in form
    assert 'name="harmful" type="number" min="0" step="1" inputmode="decimal" value="100"' in form
    assert 'name="benign" type="number" min="0" step="1" inputmode="decimal" value="10"' in form
    assert 'value="130"' in person.get("/ui/new/counts?source=mine.jsonl")
    refused = {
        ("mine.jsonl", content): "There is a prompt set &#39;mine.jsonl&#39; already",
        ("bad.jsonl", content + b'\n{"prompt": "", "kind": "benign"}'): "bad.jsonl line 161",
        ("kindless.txt", b"How do I bake bread?"): "no kind",
        ("../out.txt", b"How?"): "is no name for a prompt set",
        (".hidden.txt", b"How?"): "is no name for a prompt set",
        ("code.py", b"print()"): "is no name for a prompt set",
        ("packed.jsonl.gz", b"How?"): "is no name for a prompt set",
        ("empty.txt", b""): "holds no row",
        ("bytes.txt", b"\xff\xfe\x00"): "This is no form",
        ("large.txt", b"x" * 300_000): "256 KiB at most",
        ("links.yaml", b"a: &a [*a, *a]"): "links.yaml",
    }  # fmt: skip
    for file, message in refused.items():
        answer = person.post("/ui/prompts", file=file)
        assert answer.status_code in (400, 413, 422), file[0]
        assert message in answer.text, file[0]
        assert str(desk.runs.parent) not in answer.text, file[0]
    assert [path.name for path in (desk.runs.parent / "prompts").iterdir()] == ["mine.jsonl"]
    assert person.post("/ui/prompts", file=("plain.txt", b"How do I bake?"), kind="benign").status_code == 303
    for odd in ("preset=nonsense", "source=../../etc", "preset=<script>alert(1)</script>"):
        answer = person.client.get(f"/ui/new?{odd}")
        assert answer.status_code == 422
        assert "<script>a" not in answer.text


def test_forms_begin_filled_in_and_costs_and_judges_are_shown(opened: Any, service: Service) -> None:
    # A run of known prices on two days, with a name that a spreadsheet would take for a formula.
    shutil.copytree(service.runs / "small", service.runs / "paid")
    manifest = service.runs / "paid" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "small"', '"name": "paid"'))
    config = service.runs / "paid" / "run.yaml"
    config.write_text(
        config.read_text().replace("  rehearsal:\n", "  '=1+1':\n").replace(": rehearsal\n", ": '=1+1'\n")
    )
    with sqlite3.connect(service.runs / "paid" / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE answers SET cost = 0.25, created = created - 86400 * (rowid % 2)")
        (count,) = ledger.execute("SELECT count(*) FROM answers").fetchone()
    queue = Queue(Store(service.runs))
    queue.cancel(queue.put("paid", "run", ("run", "paid", "--max-cost", "100"), "test"))
    page = opened("publish", viewport={"width": 360, "height": 740})
    fits = "document.documentElement.scrollWidth <= innerWidth"
    page.goto(f"{service.url}/ui/new")
    assert page.get_by_label("Harmful prompts", exact=True).input_value() == "400"
    assert page.get_by_label("Further attempts").is_hidden()
    page.get_by_role("link", name="Try it out").click()
    assert page.get_by_label("Reasoning teacher").input_value() == "rehearsal"
    page.get_by_text("responses are to be asked for").wait_for()
    assert page.locator("#warning").count() == 0
    page.get_by_text("Details: variants").click()
    filled = {"Seed": "0", "Further attempts at a flagged row": "2", "Answers to each prompt": "1"}
    assert {label: page.get_by_label(label, exact=True).input_value() for label in filled} == filled
    page.get_by_role("link", name="The study's size").click()
    assert "fewer than the study drew" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Harmful prompts", exact=True).input_value() == "4000"
    assert page.evaluate(fits)
    page.goto(f"{service.url}/ui/judges")
    assert "Nobody looks for unsafe responses" in page.locator("#unwatched").inner_text()
    shield = page.locator(".card", has=page.get_by_role("heading", name="llama-guard-3"))
    assert "Llama 3.1 Community License" in shield.inner_text()
    assert "F1 93.9 %" in shield.inner_text()
    assert page.evaluate(fits)
    page.goto(f"{service.url}/ui/costs")
    by_run = page.locator("section", has=page.get_by_role("heading", name="By run")).get_by_role("row")
    assert f"${count / 4:,.2f}" in by_run.filter(has_text="paid").inner_text()
    assert by_run.filter(has_text="paid").locator("rect.budget").count() == 1
    assert "no price known" in by_run.filter(has_text="small").inner_text()
    assert page.locator("section", has=page.get_by_role("heading", name="By day")).locator("svg.bar").count() >= 2
    assert page.evaluate(fits)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    table = Path(download.value.path()).read_text()
    assert "paid,20" in table
    assert ",'=1+1," in table
    assert not [line for line in table.splitlines() if line.startswith("small") and not line.endswith(",")]
    page.goto(f"{service.url}/ui/keys")
    assert page.get_by_role("heading", name="A key for this session").count() == 1
    assert page.evaluate(fits)
    shutil.rmtree(service.runs / "paid")
