"""Nothing is built on tables that are older than what they were made from."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from curation.quality.checks import check
from curation.report.page import write_report
from curation.selection import select
from pipelines.errors import UserError
from pipelines.freshness import stale
from pipelines.judges.stage import judge
from pipelines.records import Response, Verdict, from_table, to_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from saferthoughts.cli.app import app


def test_a_run_in_order_has_nothing_old(judged: RunFolder) -> None:
    repair(judged)
    check(judged)
    select(judged)
    assert stale(judged, "accepted", "selected", "verdicts", "repairs") == []
    assert "is older than" not in write_report(judged).read_text()


def test_a_release_is_not_built_of_rows_that_were_accepted_before_they_were_judged_anew(judged: RunFolder) -> None:
    check(judged)
    verdicts = from_table(Verdict, judged.read("verdicts"))
    judged.write("verdicts", to_table(Verdict, [replace(one, safety="unsafe") for one in verdicts]))
    done = CliRunner().invoke(app, ["--runs", str(judged.path.parent), "release", "build", judged.name])
    assert isinstance(done.exception, UserError)
    expected = f"accepted.parquet is older than verdicts.parquet. Run again: saferthoughts check {judged.name}"
    assert expected in str(done.exception)
    assert not (judged.path / "release").exists()
    assert "accepted.parquet is older than verdicts.parquet" in write_report(judged).read_text()


def test_verdicts_of_other_responses_are_refused(judged: RunFolder) -> None:
    responses = from_table(Response, judged.read("responses"))
    judged.write("responses", to_table(Response, [replace(one, answer=f"{one.answer} Bye.") for one in responses]))
    for stage in (check, repair):
        with pytest.raises(UserError, match=r"verdicts.parquet is older than responses.parquet. Run again: .* judge"):
            stage(judged)
    judge(judged)
    check(judged)


def test_a_selection_of_rows_that_were_accepted_otherwise_is_refused(judged: RunFolder) -> None:
    check(judged)
    select(judged)
    accepted = judged.read("accepted")
    judged.write("accepted", accepted.slice(1))
    assert [one.table for one in stale(judged, "selected")] == ["selected.parquet"]
