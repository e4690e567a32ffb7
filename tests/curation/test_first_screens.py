"""Rows shown first and as examples are mild ones: in the report, the terminal, the page and a student's answers."""

from itertools import groupby

import duckdb
import pyarrow as pa
import pytest

from curation.quality.checks import check
from curation.report.data import figures_of
from curation.report.student import replies_of
from curation.sql.views import open_views
from pipelines.prompts.mildness import BENIGN, DRASTIC, MILD, severity, severity_sql
from pipelines.prompts.prompt_files import load_pool
from pipelines.records import Prompt, from_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from saferthoughts.cli.curation import _look
from service.rows.indexes import RowIndexes
from service.rows.reading import Query


def test_every_bundled_category_has_its_place() -> None:
    pool = load_pool("bundled")
    assert {severity(one.category) for one in pool.benign} == {0}
    assert {severity(one.category) for one in pool.behaviours} == {1, 3}
    assert {one.category for one in pool.behaviours if severity(one.category) == 1} == set(MILD)


def test_the_same_order_in_python_and_in_sql() -> None:
    categories = [*BENIGN, *MILD, *DRASTIC, "uncategorised", "Sexual/minors", "Violence", "'; --", ""]
    rows = pa.Table.from_pylist([{"c": name, "k": kind} for name in categories for kind in ("harmful", "benign")])
    with duckdb.connect() as db:
        db.register("named", rows)
        found = db.sql(f"SELECT c, k, {severity_sql('c', 'k')} FROM named").fetchall()  # noqa: S608
    assert found == [(row["c"], row["k"], severity(row["c"], row["k"])) for row in rows.to_pylist()]
    # A stranger's categories: benign rows first, what is not known before what is drastic.
    assert [severity("mine", "benign"), severity("mine"), severity("Sexual content")] == [0, 2, 3]


def places(run: RunFolder) -> dict[str, int]:
    """The place of each response by its prompt's category."""
    prompts = {one.prompt_id: severity(one.category, one.kind) for one in from_table(Prompt, run.read("prompts"))}
    return {row["response_id"]: prompts[row["prompt_id"]] for row in run.read("responses").to_pylist()}


def mildest(run: RunFolder) -> dict[tuple[str, str], list[int]]:
    """The places of the three mildest rows of each check and reason."""
    place = places(run)
    with open_views(run) as db:
        rejected = db.sql("FROM rejected").to_arrow_table().to_pylist()
    rejected.sort(key=lambda row: (row["check_name"], row["reason"]))
    return {
        key: sorted(place[row["response_id"]] for row in own)[:3]
        for key, own in groupby(rejected, key=lambda row: (row["check_name"], row["reason"]))
    }


@pytest.fixture
def checked(judged: RunFolder) -> RunFolder:
    repair(judged)
    check(judged)
    return judged


def test_the_reports_examples_are_the_mildest_of_each_reason(checked: RunFolder) -> None:
    place = places(checked)
    shown: dict[tuple[str, str], list[int]] = {}
    for row in figures_of(checked)["examples"]:
        shown.setdefault((row["check_name"], row["reason"]), []).append(place[row["response_id"]])
    assert shown == mildest(checked)
    assert {1, 3} <= set(place.values())


def test_what_checks_would_object_to_is_shown_mildest_first(
    checked: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _look(checked, ["pattern_flagged"])
    printed = capsys.readouterr().out
    place = places(checked)
    shown = [place[word] for line in printed.splitlines() for word in line.split() if word in place]
    assert shown[:3] == mildest(checked)["pattern_flagged", "pattern flagged"]


def test_the_pages_rows_begin_with_mild_ones(checked: RunFolder) -> None:
    index = RowIndexes().of(checked)
    rows = index.page(Query(), 0, 1_000, texts=False).rows
    order = [(severity(row["category"], row["kind"]), row["response_id"]) for row in rows]
    assert order == sorted(order)
    assert len(order) == checked.read("responses").num_rows


def test_a_students_answers_begin_with_benign_and_mild_questions() -> None:
    asked = [
        ("heldout harmful", "hate/threatening"),
        *[("heldout harmful", "misinformation")] * 3,
        ("heldout benign", "safe contexts"),
    ]
    answers = [
        {"category": category, "topic": topic, "id": str(at), "question": str(at), "model": "one", "detail": {}}
        for at, (category, topic) in enumerate(asked)
    ]
    assert [one["text"] for one in replies_of(answers, ["one"])] == ["4", "1", "2", "3"]
    # Results of an earlier version tell no topics.
    older = [{key: value for key, value in one.items() if key != "topic"} for one in answers]
    assert [one["text"] for one in replies_of(older, ["one"])] == ["4", "0", "1", "2"]
