"""Studies: what a file expands to, the steps as real commands, going on after kill -9, the report, bad input."""

import json
import re
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from saferthoughts.cli.app import app
from saferthoughts.studies import work
from saferthoughts.studies.spec import FOLDER, study_names
from tests.commands import Command, command

ROOT = FOLDER.parents[1]
PATTERNS: dict[str, Any] = {
    "title": "Patterns",
    "runs": {
        "data": {
            "teacher": "rehearsal",
            "variant": ["direct"],
            "judge": ["rehearsal-judge", "rehearsal-shield"],
            "harmful": 60,
            "benign": 0,
            "set": {"repair.attempts": 0},
            "check": {"filter": "but-weak-vacillation"},
            "queries": {"Patterns found": "patterns"},
        }
    },
}


class Job:
    """A step's commands as warm processes, in the place of a job of a cluster's."""

    def __init__(self, step: Any, runs: Path) -> None:
        self.step, self.began = step, time.monotonic()
        step.folder.mkdir(parents=True, exist_ok=True)
        for words in step.commands:
            ended = command(["--runs", str(runs), *words], cwd=step.folder)
            self.code = ended.returncode
            (step.folder / "log.txt").write_text(ended.stderr or "-")
            if self.code:
                return

    def done(self) -> bool:
        return True

    def result(self) -> work.Ended:
        return work._record(self.step, self.code, self.began)


def invoked(*words: str) -> str:
    """What a command prints, in this process."""
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None:
        raise result.exception
    return re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("name", study_names())
def test_every_study_of_ours_is_planned_before_anything_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    printed = invoked("--runs", str(tmp_path / "runs"), "study", "plan", name)
    steps, to_do = map(int, re.findall(r": (\d+) steps, (\d+) to do", printed)[0])
    assert steps == to_do == len(re.findall(r" \d+ (?:data|train|eval) [^:]+: ", printed))
    assert re.search(r"In all: [\d,]+ requests, about [\d,]+ tokens", printed)
    assert ("there is no file jailbreaks.json" in printed) == (name != "quick")
    assert "between two students can show" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_quick_study_trains_measures_and_says_what_differs(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_handle", lambda cluster, step, runs, *_: Job(step, runs))
    small = {
        "extends": "quick",
        "seeds": [1, 2],
        "runs": {"quick": {"harmful": 12, "benign": 8}},
        "methods": {"direct": None, "short": {"mixture": {"short": 4, "benign": 4}}},
        "students": {
            "smollm2-135m": {
                "base": "DeepSeek-R1-Distill-Qwen-7B",
                "checkpoint": str(tiny_student),
                "set": {"bf16": False},
            }
        },
        "evaluations": {"quick": {"task": ["none"], "limit": 2, "set": {"none.max_tokens": 8}}},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    words = ("--runs", str(tmp_path / "runs"), "study")
    printed = invoked(*words, "run", str(tmp_path / "small.yaml"))
    assert len(re.findall(r"seeds \d+\.\d, \d+\.\d", printed)) == 1
    for expected in (
        "study 4.0 seeds",
        "None is not asked as in the paper: our bundled questions; max_tokens 8, the paper has 4096",
        "rows of rehearsal (rehearsal-r1)",
        "effective_batch 4, max_length 512, rows 8; the paper with learning_rate 5e-06, effective_batch 48",
        "columns of the paper's Table 1 that nothing measured: MATH-500, AIME24",
        "the rehearsal teacher, no model, wrote the rows",
        "none, 2 questions: no difference between two students can show",
        "1 of 1 pairs of rows cannot be told apart (t-test over seeds and questions, Bonferroni)",
        "measured: trainings of one method differ by",
    ):
        assert expected in printed
    page = (tmp_path / "studies" / "small" / "report.html").read_text()
    assert "What differs from the paper" in page
    assert "smollm2-135m short" in page
    assert "6 done of 6 steps" in invoked(*words, "status", str(tmp_path / "small.yaml"))
    monkeypatch.setattr(work, "_handle", lambda *_: pytest.fail("a done step began"))
    invoked(*words, "run", str(tmp_path / "small.yaml"))


def test_a_killed_study_goes_on_asks_nothing_twice_and_is_not_begun_anew_unasked(tmp_path: Path) -> None:
    (tmp_path / "patterns.yaml").write_text(yaml.safe_dump(PATTERNS))
    words = ["study", "run", "patterns.yaml"]
    with Command(words, cwd=tmp_path) as first:
        while not any(_answers(path) for path in tmp_path.glob("runs/*/ledger.sqlite")):
            assert first.poll() is None
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
    done = command(words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "studies" / "steps").iterdir()
    log = (folder / "log.txt").read_text()
    # Killed within generation, or after it where this machine looked late: either way not all is asked for again.
    assert log.count("60 of 60 responses are to be asked for") == 1
    assert log.count("60 asked for now") <= 1
    assert log.count("+ ") == len(re.findall(r"-m saferthoughts", log)) == 4  # run twice, then check and sql
    assert "Patterns found" in done.stdout
    assert '"strong_vacillation"' in (folder / "Patterns-found.csv").read_text()
    assert "done" in command(["study", "status", "patterns.yaml"], cwd=tmp_path).stdout
    # Another filter is another run: not unasked, and then with the answers that there are, here as a job of submitit's.
    PATTERNS["runs"]["data"] |= {"check": {"filter": "safety"}, "queries": {}}
    (tmp_path / "patterns.yaml").write_text(yaml.safe_dump(PATTERNS))
    refused = command(words, cwd=tmp_path)
    assert refused.returncode == 2
    assert "Step 'data data' would begin anew" in refused.stderr
    again = command([*words, "--yes", "--cluster", "local"], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (other,) = (path for path in (tmp_path / "studies" / "steps").iterdir() if path != folder)
    assert "of 60 rows accepted" in (log := (other / "log.txt").read_text())
    assert "to be asked for" not in log
    assert list((tmp_path / "studies" / "patterns" / "jobs").glob("*_result.pkl"))


def _answers(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as opened:
            return int(opened.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_slurm_is_asked_for_what_a_step_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    executor = work.cluster_of("slurm", tmp_path / "jobs", {"partition": "gpu", "timeout_min": 90})
    executor.update_parameters(gpus_per_node=4)
    script = executor._executor._make_submission_file_text("a command", "key")
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=4"):
        assert f"#SBATCH {line}\n" in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plan", "tabel1"], "Unknown study 'tabel1'. Did you mean 'table1'"),
        (["plan", "quick", "--student", "x"], "Unknown student of the study 'x'"),
        (["plan", "quick", "--set", "runs.quick.harmfull=1"], "No such option: --harmfull"),
        (["plan", "quick", "--set", "runs.quick.teacher=nobody"], "Unknown teacher 'nobody'"),
        (["plan", "quick", "--set", "methods.short.run=x"], "'x' is none of its runs (quick)"),
        (["plan", "quick", "--set", "evaluations.quick.task=[non]"], "Unknown task 'non'. Did you mean 'none'"),
        (["plan", "quick", "--set", "seeds=[]"], "seeds: Tuple should have at least 1 item"),
        (["plan", "circle.yaml"], "Runs of the study reuse each other in a circle: a -> b -> a"),
        (["plan", "list.yaml"], "does not map keys to values"),
        (["run", "quick", "--slurm", "partition=gpu"], "--slurm is for --cluster slurm"),
        (["run", "quick", "--cluster", "moon"], "not 'moon'"),
        (["report", "quick"], "Nothing of study 'quick' is measured yet"),
    ],
)
def test_bad_input_is_one_line(words: list[str], expected: str, tmp_path: Path) -> None:
    runs = {name: {"teacher": "rehearsal", "reuse": other} for name, other in (("a", "b"), ("b", "a"))}
    (tmp_path / "circle.yaml").write_text(json.dumps({"runs": runs}))
    (tmp_path / "list.yaml").write_text("[1]")
    found = command(["study", *words], cwd=tmp_path)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1), found.stderr
    assert expected in found.stderr
    assert not (tmp_path / "runs").exists()
