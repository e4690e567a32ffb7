"""A user's SQL reaches the run's tables and nothing else."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.overlap.duplicates import find_duplicates
from curation.quality.checks import check
from curation.report.page import write_report
from curation.row_history import row_history
from curation.sql.query import query
from curation.sql.views import SCHEMAS, open_views
from pipelines.errors import UserError
from pipelines.judges.stage import judge
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder


def test_every_table_is_a_view_even_before_it_is_there(judged: RunFolder) -> None:
    counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in SCHEMAS)  # noqa: S608
    found = query(judged, counts)
    paths = {name: judged.table_path(name) for name in SCHEMAS}
    there = {name: pq.read_metadata(path).num_rows if path.exists() else 0 for name, path in paths.items()}
    assert dict(zip(*(column.to_pylist() for column in found.columns), strict=True)) == there


@pytest.mark.parametrize(
    "text",
    [
        "COPY responses TO '{there}/taken.csv'",
        "COPY (SELECT 1) TO '{run}/responses.parquet' (FORMAT parquet)",
        "CREATE TABLE mine AS SELECT 1",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '{there}/other.db'",
        "SET enable_external_access = true",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('{run}/run.yaml')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet')",
        "SELECT 1; SELECT 2",
        "DROP VIEW responses",
        "PRAGMA database_list",
        "",
        "nonsense",
        "SELECT nothing FROM responses",
    ],
)
def test_what_is_not_one_harmless_select_is_refused(judged: RunFolder, text: str, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in judged.path.iterdir() if path.is_file()}
    with pytest.raises(UserError):
        query(judged, text.format(there=tmp_path, run=judged.path))
    assert {path: path.read_bytes() for path in judged.path.iterdir() if path.is_file()} == before
    assert not (tmp_path / "taken.csv").exists()


def test_a_check_of_the_users_is_shut_in_as_well(judged: RunFolder, tmp_path: Path) -> None:
    from pipelines.settings.changes import change
    from pipelines.settings.options import Options

    (tmp_path / "steal.sql").write_text(
        "SELECT content AS response_id, '' AS reason, '' AS value FROM read_text('/etc/passwd')"
    )
    change(judged, Options(also={"checks.folder": str(tmp_path)}))
    with pytest.raises(UserError, match=r"steal\.sql"):
        check(judged)


def test_a_history_has_attempts_judges_and_checks(judged: RunFolder) -> None:
    repair(judged)
    check(judged)
    rows = query(judged, "SELECT response_id, root_id FROM repairs WHERE attempt = 1 ORDER BY response_id").to_pylist()
    parts = dict(row_history(judged, rows[0]["response_id"]).parts)
    assert rows[0]["root_id"] in parts["attempts"]
    assert "this one" in parts["attempts"]
    assert "judge rules" in parts
    assert parts["checks"].startswith(("accepted", "rejected"))
    with pytest.raises(UserError, match="no responses whose id begins with 'zzz'"):
        row_history(judged, "zzz")
    with pytest.raises(UserError, match=r"\d+ responses whose id begins with ''"):
        row_history(judged, "")


@pytest.mark.parametrize("name", ["prompts", "responses", "verdicts"])
def test_a_column_of_another_type_is_one_clear_line(judged: RunFolder, name: str) -> None:
    table = judged.read(name)
    field = table.column_names[0]
    judged.write(name, table.set_column(0, field, pa.array(range(table.num_rows))))
    with pytest.raises(
        UserError, match=rf"{name}\.parquet: column '{field}' is int64, not string\. Make the table again"
    ):
        check(judged)
    judged.write(name, table.drop([field]))
    with pytest.raises(UserError, match=rf"{name}\.parquet has no column '{field}'"):
        check(judged)


def test_a_damaged_table_is_one_clear_line(judged: RunFolder) -> None:
    judged.table_path("responses").write_bytes(b"PAR1 not at all PAR1")
    with pytest.raises(UserError, match="not readable parquet"):
        query(judged, "SELECT 1")


def test_text_that_is_no_utf8_is_one_clear_line(judged: RunFolder) -> None:
    check(judged)
    table = judged.read("responses")
    raw = pa.array([text.encode() for text in table["reasoning"].to_pylist()[:-1]] + [b"\xed\xa0\x80"], pa.binary())
    broken = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    place = table.schema.get_field_index("reasoning")
    judged.write("responses", table.set_column(place, table.schema.field(place), broken))
    expected = r"responses\.parquet cannot be read: .*UTF8.* Delete it and make it again: saferthoughts generate small"
    for use in (check, find_duplicates, lambda run: query(run, "SELECT sum(length(reasoning)) FROM responses")):
        with pytest.raises(UserError, match=expected):
            use(judged)  # type: ignore[operator]


def test_nan_and_null_bytes_go_through(judged: RunFolder) -> None:
    table = judged.read("responses")
    for name, values in (("cost", [float("nan")] * table.num_rows), ("answer", ["a\x00b"] * table.num_rows)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values))
    judged.write("responses", table)
    judge(judged)
    check(judged)
    write_report(judged)
    assert "NaN" not in (judged.path / "report.json").read_text()


@pytest.mark.parametrize(("key", "value"), [("copied_share", 3), ("loop_times", 1), ("near_duplicate_similarity", 0.1)])
def test_thresholds_out_of_range_are_one_clear_line(judged: RunFolder, key: str, value: float) -> None:
    path = judged.path / "run.yaml"
    path.write_text(path.read_text().replace("checks:\n", f"checks:\n  {key}: {value}\n", 1))
    lines = [
        line
        for line in path.read_text().splitlines()
        if not line.startswith(f"  {key}:") or line.endswith(f": {value}")
    ]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"run\.yaml: checks\.{key}: .* \(it is {value}\)"):
        check(judged)


def test_an_empty_run_has_no_accepted_rows_and_no_crash(judged: RunFolder) -> None:
    for name in ("responses", "verdicts", "judgements"):
        judged.write(name, judged.read(name).slice(0, 0))
    done = check(judged)
    assert (done.responses, done.accepted, done.rejected) == (0, 0, 0)


def test_views_can_be_opened_twice(judged: RunFolder) -> None:
    with open_views(judged) as one, open_views(judged) as other:
        assert (
            one.sql("SELECT count(*) FROM prompts").fetchall() == other.sql("SELECT count(*) FROM prompts").fetchall()
        )
