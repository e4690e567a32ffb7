"""Rows searched, sorted, exported; runs renamed, deleted, exported, imported over HTTP: hostile words and archives."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.rows.columns import Columns, filter_of
from service.rows.layout import path_of
from service.rows.text_diff import changed
from tests.service.conftest import Service
from tests.service.test_api import problem


def found(service: Service, **asked: Any) -> dict[str, Any]:
    """A page of rows, as soon as words are indexed."""
    with service.client("read") as client:
        while (
            answer := client.get("/runs/small/rows", params={"texts": True, "limit": 200, **asked})
        ).status_code == 409:
            assert "being indexed" in answer.json()["detail"]
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_search_finds_whole_words_beginnings_and_phrases_in_any_part(service: Service) -> None:
    rows = found(service)["rows"]
    word = next(word for word in rows[0]["reasoning"].split() if word.isalpha() and len(word) > 4)

    def having(part: str, fits: Callable[[str], bool]) -> set[str]:
        return {row["response_id"] for row in rows if fits(" ".join(row[part].lower().split()))}

    def ids(**asked: Any) -> set[str]:
        return {row["response_id"] for row in found(service, **asked)["rows"]}

    begins = word[:4].lower()
    assert ids(q=f"{begins}*", within="reasoning") >= having("reasoning", lambda text: f" {word.lower()} " in text)
    two = " ".join(rows[0]["answer"].split()[:2])
    assert ids(q=f'"{two}"', within="answer") >= {rows[0]["response_id"]}
    assert ids(q=two.upper()) >= ids(q=f'"{two}"')
    assert found(service, q="zzzznothing")["total"] == 0
    accepted = ids(q=two, where="outcome:eq:accepted")
    assert accepted == ids(q=two) & ids(where="outcome:eq:accepted")


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ({"q": 'a" OR b NOT (c'}, 200, ""),
        ({"q": "{answer} : x^2 NEAR(a b)"}, 200, ""),
        ({"q": "prompt:x; DROP TABLE words; --"}, 200, ""),
        ({"q": "\u202e\u0301e 日本 ñ"}, 200, ""),
        ({"q": '"'}, 422, "has none"),
        ({"q": "*\x00"}, 422, "has none"),
        ({"q": " ".join("abcdefghijklmnop")}, 422, "12 words at most"),
        ({"q": "x" * 301}, 422, "300"),
        ({"q": "x", "within": "answr"}, 422, "Did you mean 'answer'"),
        ({"sort": "wurst"}, 422, "Did you mean 'worst'"),
        ({"sort": "category"}, 422, "Unknown figure to sort by 'category'"),
        ({"sort": "--worst; DROP TABLE rows"}, 422, "Unknown figure"),
        ({"where": "category:contains:%(.*"}, 200, ""),
    ],
)
def test_hostile_searches_and_orders_have_an_answer(
    service: Service, asked: dict[str, str], status: int, expected: str
) -> None:
    found(service, q="a")
    with service.client("read") as client:
        answer = client.get("/runs/small/rows", params=asked)
        assert (answer.status_code, expected in answer.text) == (status, True), answer.text


def test_any_figure_sorts_and_missing_ones_come_last(service: Service) -> None:
    rows = found(service)["rows"]
    order = {row["response_id"]: place for place, row in enumerate(rows)}
    for name in ("worst", "output_tokens", "latency_s", "disagreement", "refused"):
        for sign, factor in (("", 1), ("-", -1)):
            got = [row["response_id"] for row in found(service, sort=sign + name)["rows"]]

            def key(row: dict[str, Any], name: str = name, factor: int = factor) -> Any:
                return row[name] is None, factor * (row[name] or 0), order[row["response_id"]]

            assert got == [row["response_id"] for row in sorted(rows, key=key)], sign + name
    worst = found(service, sort="-worst")["rows"][0]
    assert worst["worst"] == max(row["worst"] for row in rows if row["worst"] is not None)


def test_what_was_looked_at_of_the_figures_does_not_stay_in_memory(service: Service) -> None:
    found(service)
    path = path_of(service.runs, "small", "arrow")
    columns = Columns(path)

    def mapped_kb() -> int:
        areas = Path("/proc/self/smaps").read_text().split(str(path.resolve()))[1:]
        assert areas
        return sum(int(area.partition("\nRss:")[2].split()[0]) for area in areas)

    columns.fitting([filter_of("variant:eq:short")])
    assert mapped_kb() > 0
    assert columns.rows([1])[0]["response_id"]
    assert mapped_kb() == 0


def test_what_is_exported_is_what_was_found(service: Service) -> None:
    asked = {"where": "variant:eq:short", "sort": "-output_tokens"}
    rows = found(service, **asked)["rows"]
    with service.client("read") as client:
        lines = client.get("/runs/small/rows/export", params=asked)
        table = client.get("/runs/small/rows/export", params={**asked, "format": "parquet"})
        two = client.get("/runs/small/rows/export", params={"id": [rows[1]["response_id"], "none", "\ud800x"[1:]]})
        assert "pattern" in problem(client.get("/runs/small/rows/export", params={"format": "exe"}), 422)
    assert [json.loads(line) for line in lines.text.splitlines()] == rows
    assert pq.read_table(io.BytesIO(table.content)).to_pylist() == rows
    assert [json.loads(line)["response_id"] for line in two.text.splitlines()] == [rows[1]["response_id"]]
    assert lines.headers["content-disposition"] == 'attachment; filename="small-rows.jsonl"'


def test_runs_are_paged_and_found_by_a_part_of_their_name(service: Service) -> None:
    with service.client("read") as client:
        answer = client.get("/runs", params={"q": "SMAL", "limit": 1})
        assert [run["name"] for run in answer.json()] == ["small"]
        assert answer.json()[0]["started_by"] == "run"
        assert client.get("/runs", params={"q": "none such"}).headers["x-total-count"] == "0"
        assert client.get("/runs", params={"offset": 10**6}).json() == []


@pytest.fixture(scope="module")
def archive(service: Service) -> bytes:
    with service.client("read") as client:
        answer = client.get("/runs/small/run.zip")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_run_is_taken_elsewhere_renamed_and_deleted(service: Service, archive: bytes) -> None:
    with service.client() as client, service.client("publish") as publisher:
        made = client.post("/runs/import?name=moved", content=archive)
        assert (made.status_code, made.json()["state"], made.json()["started_by"]) == (201, "released", "")
        small = service.get("/runs/small")
        assert [made.json()[key] for key in ("funnel", "answers", "version")] == [
            small[key] for key in ("funnel", "answers", "version")
        ]
        assert "already" in problem(client.post("/runs/import?name=moved", content=archive), 409)
        assert "already" in problem(client.post("/runs/moved/rename", json={"name": "small"}), 409)
        assert client.post("/runs/moved/rename", json={"name": "again"}).json()["name"] == "again"
        assert service.get("/runs/again/rows")["total"] == service.get("/runs/small/rows")["total"]
        held = {one["name"] for one in service.get("/runs/again/contents")}
        assert {"release/", "ledger.sqlite", "responses.parquet"} <= held
        assert "needs publish" in problem(client.post("/runs/again/delete", json={"confirm": "again"}), 403)
        assert "type its name" in problem(publisher.post("/runs/again/delete", json={"confirm": "small"}), 422)
        assert publisher.post("/runs/again/delete", json={"confirm": "again"}).status_code == 204
        problem(client.get("/runs/again"), 404)
    assert not [path for path in service.runs.rglob("*again*") if path.name != "service.txt"]


def changed_zip(archive: bytes, change: Callable[[dict[str, bytes]], None], mode: int = 0o100644) -> bytes:
    """An archive with other files."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        files = {name: source.read(name) for name in source.namelist()}
    change(files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (mode if name.endswith("run.yaml") else 0o100644) << 16
            target.writestr(entry, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda files: files.update({"small/../../evil": b"x"}), "no file of a run's archive"),
        (lambda files: files.update({"/etc/evil": b"x"}), "no file of a run's archive"),
        (lambda files: files.update({"small\\..\\evil": b"x"}), "no file of a run's archive"),
        (lambda files: files.update({"small/release/../evil": b"x"}), "no file of a run's archive"),
        (lambda files: files.update({"small/release/.hidden": b"x"}), "no file of a run's archive"),
        (lambda files: files.update({"other/run.yaml": b"x"}), "no file of a run's archive"),
        (lambda files: files.update({"small/model/adapter.bin": b"x"}), "no file of a run's archive"),
        (lambda files: files.pop("small/run.yaml"), "holds no run"),
        (lambda files: files.update({"small/manifest.json": b"[1]"}), "manifest"),
        (lambda files: files.update({"small/responses.parquet": b"PAR1 no"}), "table of the archive cannot be read"),
        (lambda files: files.update({"small/ledger.sqlite": b"x" * 5000}), "is no ledger"),
        (lambda files: files.update({"small/run.yaml": files["small/run.yaml"] + b"\nwhat: 1\n"}), "what"),
        (
            lambda files: files.update(
                {
                    "small/run.yaml": files["small/run.yaml"].replace(
                        b"embedded: true", b"base_url: http://evil.example/v1\n    api_key_env: HF_TOKEN"
                    )
                }
            ),
            "at http://evil.example/v1 with the key of",
        ),
    ],
)
def test_a_hostile_archive_is_refused_whole(
    service: Service, archive: bytes, change: Callable[[dict[str, bytes]], None], expected: str
) -> None:
    before = sorted(path.name for path in service.runs.iterdir())
    with service.client() as client:
        answer = client.post("/runs/import?name=evil", content=changed_zip(archive, change))
        assert expected in problem(answer, 422)
    assert sorted(path.name for path in service.runs.iterdir()) == before


def test_links_rests_and_other_files_are_no_archive(service: Service, archive: bytes) -> None:
    link = changed_zip(archive, lambda files: files.update({"small/run.yaml": b"/etc/passwd"}), 0o120777)
    with service.client() as client, service.client("read") as reader:
        for content in (link, archive[:-100], archive[: len(archive) // 2], b"", b"PK\x05\x06", b"\x00" * 1000):
            problem(client.post("/runs/import?name=evil", content=content), 422)
        problem(reader.post("/runs/import?name=evil", content=archive), 403)
        assert "name" in problem(client.post("/runs/import?name=../evil", content=archive), 422)
    assert not (service.runs / "evil").exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("One. I can help. Two.", "One. I cannot help. Two."),
        ("", "all new"),
        ("a. " * 3000, "a. " * 3000 + "b"),
        ("word " * 50_000, "word " * 49_999 + "ward"),
        ("ab" * 100_000, "ba" * 100_000),
    ],
)
def test_a_diff_is_both_texts_in_bounded_time(first: str, second: str) -> None:
    left, right = changed(first, second)
    assert ("".join(piece.text for piece in left), "".join(piece.text for piece in right)) == (first, second)
    assert any(piece.differs for piece in (*left, *right))
