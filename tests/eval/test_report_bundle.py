"""Inspect's viewer beside a report, with the logs of every evaluation."""

import json
import shutil
from pathlib import Path

import pytest
from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, write_eval_log
from typer.testing import CliRunner

from eval.report.page import read_sources, write_evaluation_report
from eval.run.results import write_results
from pipelines.errors import UserError
from saferthoughts.cli.app import app
from tests.eval.made_results import measured, results, task_run

LOG = "logs/m/2026-11-25T12-00-00_none_a.eval"


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """An evaluation with a log as Inspect writes it."""
    spec = EvalSpec(
        created="2026-11-25T12:00:00+00:00",
        task="none",
        model="openai-api/server/m",
        dataset=EvalDataset(),
        config=EvalConfig(),
    )
    write_eval_log(EvalLog(status="success", eval=spec), str(tmp_path / "logged" / LOG))
    found = results([measured("m")], {"none": {"m": [0.0]}}, {"none": task_run("none", logs={"m": LOG})})
    write_results(found, tmp_path / "logged" / "results.json")
    return tmp_path / "logged"


def test_a_bundle_has_inspect_s_viewer_and_the_logs(logged: Path, tmp_path: Path) -> None:
    command = ["report", "eval", str(logged), "--bundle", "--json", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    # What Inspect says on the way stays out of the JSON.
    assert json.loads(done.stdout)["evaluations"] == ["logged"]
    (log,) = (tmp_path / "out" / "inspect" / "logs").rglob("*.eval")
    assert log.read_bytes() == (logged / LOG).read_bytes()
    assert (tmp_path / "out" / "inspect" / "index.html").is_file()
    assert '<a href="inspect/index.html">' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_bundle_without_its_logs_is_refused_and_nothing_written(logged: Path, tmp_path: Path) -> None:
    shutil.rmtree(logged / "logs")
    with pytest.raises(UserError, match=r"has no log 'logs/m/.*\.eval' any more.*Report without --bundle"):
        write_evaluation_report(read_sources([logged]), tmp_path / "out", bundle=True)
    assert not (tmp_path / "out").exists()


def test_a_log_elsewhere_is_not_taken_into_a_bundle(logged: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else", encoding="utf-8")
    found = results([measured("m")], {"none": {"m": [0.0]}}, {"none": task_run("none", logs={"m": "../secret"})})
    write_results(found, logged / "results.json")
    with pytest.raises(UserError, match=r"name a log '\.\./secret', which leads out of the folder"):
        write_evaluation_report(read_sources([logged]), tmp_path / "out", bundle=True)
