"""saferthoughts report: a run's page as before, and evaluations by `report eval`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.run.results import write_results
from saferthoughts.cli.app import app
from tests.eval.made_results import Value, measured, results, task_run

LOW: list[Value] = [1.0] * 2 + [0.0] * 48


@pytest.fixture
def evaluations(tmp_path: Path) -> list[str]:
    """Two evaluations, of two protocols."""
    for name, protocol in (("a", "paper"), ("b", "repository")):
        found = results([measured(name)], {"none": {name: LOW}}, {"none": task_run("none", protocol)})
        write_results(found, tmp_path / "runs" / name / "eval" / "results.json")
    return [str(tmp_path / "runs" / name / "eval") for name in ("a", "b")]


def test_report_eval_prints_a_table_and_the_page(evaluations: list[str]) -> None:
    done = CliRunner().invoke(app, ["report", "eval", evaluations[0]])
    assert done.exit_code == 0, done.output
    page = Path(evaluations[0]) / "report" / "report.html"
    assert done.stdout.splitlines()[-1] == str(page.resolve())
    assert "[1.1, 13.5]" in done.stdout
    assert page.exists()


def test_several_evaluations_go_where_the_user_is_and_warnings_beside_the_result(
    evaluations: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "eval", *evaluations, "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert [section["protocol"] for section in figures["sections"]] == ["paper", "repository"]
    assert figures["sections"][0]["rows"][0]["figures"]["none"]["counts"]["hits"] == 2
    assert "Not to be compared with each other" in done.stderr
    assert (tmp_path / "eval-report" / "report.md").exists()


def test_a_run_need_not_be_told_from_a_command(tmp_path: Path) -> None:
    for words in (["report", "mine"], ["report", "run", "mine"]):
        done = CliRunner().invoke(app, ["--runs", str(tmp_path), *words])
        assert "There is no run 'mine'" in str(done.exception)
