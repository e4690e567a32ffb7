"""Sweeps: which members a file has, and that they are trained one after another, once, whatever happens."""

import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import yaml

from pipelines.errors import UserError
from pipelines.settings.overrides import settings_of
from tests.commands import Command, command
from training.recipes.recipe import Recipe, load_recipe
from training.stage import train
from training.sweeps.sweep import SWEEPS, Member, load_sweep, members_of, shown
from training.sweeps.sweep_run import MemberOutcome, Score, table_of, write_results

RECIPE = {
    "mixture": {"improved": 6},
    "chat_template": "smollm2",
    "max_length": 512,
    "epochs": 1,
    "batch_size": 2,
    "gradient_checkpointing": False,
    "report_to": "none",
}


@pytest.fixture
def members(tmp_path: Path) -> Callable[..., list[Member]]:
    """The members of a sweep as written into a file."""

    def made(values: dict[str, Any], settings: Sequence[str] = ()) -> list[Member]:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return members_of(load_sweep(str(path)), None, "some/release", None, settings_of(settings))

    return made


def test_the_studys_ablations_are_one_sweep() -> None:
    found = members_of(load_sweep("ablations"), None, "some/release", None, [])
    in_grid = {
        grid: [one for one in found if grid in one.grids] for grid in ("learning-rate", "rows", "benign", "variants")
    }
    assert [one.recipe.learning_rate for one in in_grid["learning-rate"]] == [1e-6, 5e-6, 5e-5, 1e-4]
    assert sorted(shown(one.grids["rows"]["mixture"]) for one in in_grid["rows"]) == [
        f"improved:{rows}+benign:100" for rows in (100, 1000, 2000, 500)
    ]
    assert len(in_grid["benign"]) == 2
    assert len(in_grid["variants"]) == 6
    # The study's own setting is in every grid and trained once.
    assert len(found) == 13
    assert [len(one.grids) for one in found if one.recipe.learning_rate == 5e-6 and len(one.grids) > 1] == [4]
    assert {one.recipe.student for one in found} == {load_recipe("r1-distill-qwen-7b-full").student}


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_members_of_bundled_sweeps_have_folders_of_their_own(path: Path) -> None:
    names = [one.name for one in members_of(load_sweep(path.stem), None, "some/release", None, [])]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_a_grid_is_every_combination(members: Callable[..., list[Member]]) -> None:
    grids = {"both": {"learning_rate": [1e-5, 1e-4], "epochs": [1, 2]}}
    found = members({"recipe": "smollm2-135m-cpu", "set": {"seed": 3}, "grids": grids}, ["batch_size=2"])
    assert [(one.recipe.learning_rate, one.recipe.epochs) for one in found] == [
        (1e-5, 1),
        (1e-5, 2),
        (1e-4, 1),
        (1e-4, 2),
    ]
    assert {(one.recipe.seed, one.recipe.batch_size) for one in found} == {(3, 2)}
    assert found[0].name == "learning_rate=1e-05,epochs=1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grids": {"a": {"epochs": [1]}}}, "The sweep names no recipe"),
        ({"recipe": "smollm2-135m-cpu", "grids": {"a": {"epoch": [1]}}}, "Unknown key 'epoch'. Did you mean 'epochs'"),
        ({"recipe": "smollm2-135m-cpu", "grids": {"a": {"epochs": [0]}}}, "epochs: input should be greater than 0"),
        ({"recipe": "smollm2-135m-cpu", "grids": {"a": {"epochs": 1}}}, "sweep sweep.yaml: grids.a.epochs"),
        ({"recipe": "smollm2-135m-cpu", "grids": {}}, "sweep sweep.yaml: grids"),
        ({"gird": {}, "grids": {"a": {"epochs": [1]}}}, "Unknown key in sweep sweep.yaml 'gird'. Did you mean 'grids'"),
    ],
)
def test_a_bad_sweep_is_one_clear_line(
    members: Callable[..., list[Member]], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        members(values)
    assert "\n" not in str(error.value)


def test_results_tell_what_a_member_scored_and_why_another_failed(tmp_path: Path) -> None:
    scored = MemberOutcome(
        "a", {"rate": {"learning_rate": 5e-6}, "rows": {"mixture": {"improved": 10}}}, "trained", "", 10, 2.5, 0.25,
        61.4, 9.0, {"none": Score(0.12, 0.05, 0.24, 50)},
    )  # fmt: skip
    failed = MemberOutcome("b", {"rate": {"learning_rate": 1.0}}, "failed", "The loss of step 3 is nan | stopped")
    names, lines = table_of([scored, failed])
    assert names == ["grid", "values", "rows", "first loss", "last loss", "trained tokens/s", "none", "state"]
    assert lines[0] == ["rate", "learning_rate=5e-06", "10", "2.50", "0.25", "61", "12 % [5, 24] of 50", "trained"]
    assert lines[1][-1] == "failed: The loss of step 3 is nan | stopped"
    assert lines[2][:2] == ["rows", "mixture=improved:10"]
    write_results([scored, failed], tmp_path)
    markdown = (tmp_path / "results.md").read_text().splitlines()
    assert len(markdown) == 5
    assert "nan \\| stopped" in markdown[3]
    assert json.loads((tmp_path / "results.json").read_text())[0]["scores"]["none"]["n"] == 50


def test_a_sweep_trains_each_member_once_and_goes_on_after_a_kill(
    release: Path, tiny_student: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "student": str(tiny_student)}))
    # One is trained already, one for long enough to be killed in, one wants more rows than there are.
    grids = {"few": {"mixture": [{"improved": 4}]}, "long": {"epochs": [80]}, "many": {"mixture": [{"improved": 99}]}}
    sweep = {"recipe": str(tmp_path / "recipe.yaml"), "grids": grids}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    output = tmp_path / "swept"
    few = Recipe.model_validate({**RECIPE, "mixture": {"improved": 4}})
    train(few, release, output / "mixture=improved_4", tiny_student)
    words = ["train", "--sweep", str(tmp_path / "sweep.yaml"), "--dataset", str(release), "--output", str(output)]
    # The sweep begins warm; its members are begun by the sweep, each by the interpreter.
    words += ["--set", "checkpoint_minutes=0.01"]
    first = Command(words, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
    work = output / ".epochs=80.training"
    while not any(work.glob("checkpoint-*/trainer_state.json")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    # The member ends with the sweep, or two of them would train the same model from now on.
    done = command(words, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 of 3 members failed; the same command tries them again." in done.stderr
    assert "going on from step" in (output / "logs" / "epochs=80.txt").read_text()
    found = {one["name"]: one for one in json.loads((output / "results.json").read_text())}
    assert [one["state"] for one in found.values()] == ["trained", "trained", "failed"]
    assert "has 10 rows, the recipe's mixture wants 99" in found["mixture=improved_99"]["reason"]
    assert found["mixture=improved_4"]["rows"] == 4
    assert found["epochs=80"]["last_loss"] < found["epochs=80"]["first_loss"]
    assert done.stderr.count("is trained already") == 1
    assert "| many | mixture=improved:99 |" in (output / "results.md").read_text()
