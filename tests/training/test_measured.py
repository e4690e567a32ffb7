"""A student that was trained here is measured: `eval` finds its release, and leaves out the prompts of that."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from eval.report.page import read_sources, write_evaluation_report
from pipelines.errors import UserError
from saferthoughts.cli.evaluation import evaluate
from saferthoughts.cli.options import Settings
from tests.commands import command
from training.recipes.recipe import Recipe
from training.stage import train

RECIPE = {
    "mixture": {"improved": 8},
    "overlong_share": 0.9,
    "chat_template": "smollm2",
    "max_length": 512,
    "epochs": 1,
    "batch_size": 4,
    "gradient_checkpointing": False,
    "report_to": "none",
}


@dataclass(frozen=True)
class Trained:
    """A run with its release, a student trained on it as a member of a sweep, and questions."""

    folder: Path
    member: Path
    questions: Path


@pytest.fixture(scope="module")
def trained(released_once: Path, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(released_once, folder / "runs" / "small")
    release = folder / "runs" / "small" / "release"
    member = folder / "swept" / "member"
    recipe = Recipe(student=str(tiny_student), **RECIPE)  # type: ignore[arg-type]
    train(recipe, release, member, report=print)
    asked = sorted(set(pq.read_table(next(release.glob("data/improved/*.parquet")))["query"].to_pylist()))
    every = [json.loads(line) for line in (release / "prompts.jsonl").read_text().splitlines()]
    unreleased = next(row["text"] for row in every if row["text"] not in asked)
    rows = [{"id": "trained", "prompt": asked[0]}, {"id": "drawn", "prompt": unreleased}]
    rows.append({"id": "new", "prompt": "How do I fold a paper boat?"})
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Trained(folder, member, questions)


def results_of(output: Path) -> dict[str, Any]:
    """The one task of an evaluation."""
    [task] = json.loads((output / "results.json").read_text())["tasks"]
    return dict(task)


@pytest.fixture
def measured(trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """XSTest on the questions, as the command asks it; and what its results say of the task."""
    monkeypatch.chdir(trained.folder)
    monkeypatch.setattr(Settings, "runs", Path("runs"))

    def measure(model: str, sets: Sequence[str] = (), **options: Any) -> dict[str, Any]:
        data, sets = [f"xstest={trained.questions}"], ["xstest.max_tokens=4", *sets]
        evaluate(model, tasks=["xstest"], data=data, sets=sets, output=tmp_path / "out", **options)
        return results_of(tmp_path / "out")

    return measure


def test_student_of_a_sweep_is_not_asked_what_it_was_trained_on(trained: Trained) -> None:
    data = ["--data", f"xstest={trained.questions}", "--set", "xstest.max_tokens=4"]
    done = command(["eval", "swept/member", "--task", "xstest", *data], trained.folder)
    assert done.returncode == 0, done.stderr
    assert "trained on: " in done.stderr
    assert "member: trained on rows of the rehearsal teacher" in done.stdout
    task = results_of(trained.member / "eval")
    assert (task["settings"]["exclude_trained"], task["data"]["questions"], task["data"]["left_out"]) == (True, 1, 2)


def test_report_of_a_student_of_rehearsed_rows_says_so_first_and_names_no_path(trained: Trained) -> None:
    write_evaluation_report(read_sources([trained.member / "eval"]), trained.folder / "report")
    first = "member was trained on rows of the rehearsal teacher, a program that stands in for a model"
    markdown = (trained.folder / "report" / "report.md").read_text()
    assert markdown.startswith(f"**{first}")
    page = (trained.folder / "report" / "report.html").read_text()
    assert page.partition("<main>")[2].strip().startswith(f'<p class="note"><strong>{first}')
    assert json.loads((trained.folder / "report" / "report.json").read_text())["rehearsed"] == ["member"]
    for name in ("report.md", "report.html", "report.json"):
        text = (trained.folder / "report" / name).read_text()
        assert str(trained.folder) not in text
        assert str(Path.home()) not in text


def test_release_that_is_named_is_the_one_whose_prompts_are_left_out(measured: Callable[..., dict[str, Any]]) -> None:
    task = measured("swept/member", release="runs/small/release")
    assert (task["data"]["questions"], task["data"]["left_out"]) == (1, 2)


def test_nothing_is_said_to_be_left_out_where_the_release_is_gone(
    trained: Trained, measured: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    lost = trained.folder / "lost"
    shutil.copytree(trained.member, lost)
    record = json.loads((lost / "training.json").read_text())
    record["dataset"]["files"] = dict.fromkeys(record["dataset"]["files"], "0" * 64)
    (lost / "training.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"exclude_trained=true: nothing tells .* Name it with --release FOLDER"):
        measured("lost", sets=["xstest.exclude_trained=true"])
    task = measured("lost")
    assert "no prompt is left out as trained on" in " ".join(capfd.readouterr().err.split())
    assert (task["settings"]["exclude_trained"], task["data"]["questions"], task["data"]["left_out"]) == (False, 3, 0)


def test_run_is_measured_with_its_own_release(
    trained: Trained, tiny_student: Path, measured: Callable[..., dict[str, Any]]
) -> None:
    shutil.copytree(trained.member, trained.folder / "runs" / "small" / "model")
    task = measured("small", student=tiny_student)
    assert (task["settings"]["exclude_trained"], task["data"]["questions"], task["data"]["left_out"]) == (True, 1, 2)
