"""A training that is stopped goes on from its last checkpoint as if it had not been; what it takes is told before."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipelines.errors import UserError
from tests.commands import Command
from tests.training.conftest import release_rows, written_release
from tests.training.test_objectives import rows_of, settings_of
from training.recipes.recipe import Recipe
from training.stage import check, train
from training.trainer.checkpoints import check_disk, checkpoints_in, workplace_of
from training.trainer.torn import fault_of

SETTINGS: dict[str, Any] = {
    "mixture": {"improved": 10, "benign": 6},
    "chat_template": "smollm2",
    "max_length": 512,
    "epochs": 8,
    "learning_rate": 1e-2,
    "batch_size": 2,
    "gradient_checkpointing": False,
    "checkpoint_minutes": 1e-6,
}
# Where a checkpoint after every step would only take time.
SELDOM: dict[str, Any] = {**SETTINGS, "checkpoint_minutes": 60}


@dataclass(frozen=True)
class Killed:
    """A training that was killed: its release, what it left behind, and the step of its last whole checkpoint."""

    release: Path
    work: Path
    step: int


def typed(settings: dict[str, Any], release: Path, student: Path) -> dict[str, Any]:
    """A recipe as a file has it."""
    return {**settings, "dataset": str(release), "student": str(student)}


def training(settings: dict[str, Any], release: Path, output: Path, student: Path, **env: str) -> Command:
    """The command, under way."""
    recipe = output.with_name("recipe.yaml")
    recipe.write_text(yaml.safe_dump(typed(settings, release, student), sort_keys=False))
    words = ["train", str(recipe), "--output", str(output)]
    return Command(words, cwd=output.parent, env=os.environ | env, stdout=PIPE, stderr=PIPE)


@pytest.fixture(scope="module")
def killed(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A real process, killed by a real SIGKILL once it has left a few checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    rows = {"improved": release_rows("harmful", 10), "benign": release_rows("benign", 6)}
    release, work = written_release(folder / "release", rows), folder / ".model.training"
    first = training(SETTINGS, release, folder / "model", tiny_student)
    while not any(step_of(path) >= 3 and not fault_of(path) for path in checkpoints_in(work)):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert not (folder / "model").exists()
    whole = [path for path in checkpoints_in(work) if not fault_of(path)][-1]
    return Killed(release, work, step_of(whole))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def test_killed_and_run_again_it_ends_where_it_would_have(killed: Killed, tiny_student: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(typed(SELDOM, killed.release, tiny_student))
    whole = train(recipe, killed.release, tmp_path / "whole", tiny_student)
    work = shutil.copytree(killed.work, tmp_path / ".model.training")
    output: list[str] = []
    done = train(recipe, killed.release, tmp_path / "model", tiny_student, output.append)
    assert f"going on from step {killed.step}" in output
    facts = json.loads((tmp_path / "model" / "training.json").read_text())
    assert facts["resumed_from"] == done.resumed_from == killed.step >= 3
    assert facts["loss"] == pytest.approx(whole.losses, rel=1e-4, abs=1e-4)
    ours, theirs = weights(tmp_path / "model"), weights(tmp_path / "whole")
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=1e-3)
    assert not work.exists()


def test_a_killed_training_of_pairs_goes_on_against_the_student_as_it_was(tiny_student: Path, tmp_path: Path) -> None:
    release = written_release(tmp_path / "release", {"preference": rows_of("preference")})
    settings = settings_of("dpo", epochs=4, checkpoint_minutes=1e-6)
    first = training(settings, release, tmp_path / "model", tiny_student)
    work = tmp_path / ".model.training"
    while not any(step_of(path.parent) >= 2 for path in work.glob("checkpoint-*/trainer_state.json")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    recipe = Recipe.model_validate(typed({**settings, "checkpoint_minutes": 60}, release, tiny_student))
    done = train(recipe, release, tmp_path / "model", tiny_student)
    assert done.resumed_from >= 1
    whole = train(recipe, release, tmp_path / "whole", tiny_student)
    facts = json.loads((tmp_path / "model" / "training.json").read_text())
    assert facts["loss"] == pytest.approx(whole.losses, rel=1e-3, abs=1e-4)


def test_ctrl_c_ends_the_step_and_keeps_it(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    # Long enough to be stopped, and without a checkpoint by the clock.
    settings = {**SELDOM, "epochs": 12}
    first = training(settings, release, tmp_path / "model", tiny_student)
    assert first.stdout is not None
    assert any("estimated" in line for line in first.stdout)
    time.sleep(0.5)
    code, _, errors = first.end(signal.SIGINT)
    assert code == 130
    stopped = int(errors.rpartition("Stopped after step ")[2].split()[0])
    work = tmp_path / ".model.training"
    assert (work / f"checkpoint-{stopped}" / "trainer_state.json").is_file()
    output: list[str] = []
    recipe = Recipe.model_validate(typed(settings, release, tiny_student))
    done = train(recipe, release, tmp_path / "model", tiny_student, output.append)
    assert (done.resumed_from, len(done.losses)) == (stopped, 96)
    assert f"going on from step {stopped}" in output


def test_two_processes_do_not_train_the_same_model(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    with (
        workplace_of(tmp_path / "model", "a fingerprint"),
        pytest.raises(UserError, match="Another process is training"),
    ):
        train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_another_recipe_begins_anew(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    work = tmp_path / ".model.training"
    (work / "checkpoint-3").mkdir(parents=True)
    (work / "checkpoint-3" / "trainer_state.json").write_text("{}")
    (work / "fingerprint.json").write_text('"of another training"')
    done = train(Recipe.model_validate({**SELDOM, "epochs": 1}), release, tmp_path / "model", tiny_student)
    assert done.resumed_from == 0
    assert len(done.losses) == 8


def test_a_torn_checkpoint_is_set_aside_and_the_one_before_it_gone_on_from(
    killed: Killed, tiny_student: Path, tmp_path: Path
) -> None:
    work, step = tmp_path / ".model.training", killed.step
    whole = work / f"checkpoint-{step}"
    shutil.copytree(killed.work, work)
    for path in checkpoints_in(work):
        if path != whole:
            shutil.rmtree(path)
    for how, fault in FAULTS.items():
        for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"):
            torn = work / f"checkpoint-{step + 1}"
            shutil.rmtree(torn, ignore_errors=True)
            shutil.copytree(whole, torn)
            state = torn / "trainer_state.json"
            state.write_text(state.read_text().replace(f'"global_step": {step}', f'"global_step": {step + 1}'))
            assert fault_of(torn) == ""
            fault(torn / name)
            assert name.partition(".")[0].removesuffix("_state") in fault_of(torn).replace("weights", "model"), how
    output: list[str] = []
    recipe = Recipe.model_validate(typed(SELDOM, killed.release, tiny_student))
    done = train(recipe, killed.release, tmp_path / "model", tiny_student, output.append)
    assert done.resumed_from == step
    assert any(f"checkpoint-{step + 1} cannot be gone on from" in line and "set aside" in line for line in output)


# What a full disk, a power cut and a kill do to a file.
FAULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "missing": lambda path: path.unlink(),
}


def test_a_checkpoint_that_is_held_counts_as_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shutil.disk_usage(tmp_path)._replace(free=30_000_000)
    monkeypatch.setattr("training.trainer.checkpoints.shutil.disk_usage", lambda path: small)
    parameters = 2_000_000  # two checkpoints of 24 MB and a model of 4 MB
    recipe = Recipe.model_validate(SETTINGS)
    with pytest.raises(UserError, match=r"of 24\.0 MB .*model of 4\.0 MB take 52\.0 MB .* 30\.0 MB are free\."):
        check_disk(tmp_path, parameters, parameters, recipe)
    once = recipe.model_copy(update={"checkpoint_minutes": 0, "bf16": False})
    check_disk(tmp_path, parameters, parameters, once)
    with pytest.raises(UserError, match=r"The model takes 32\.0 MB under .*, and 30\.0 MB are free\."):
        check_disk(tmp_path, parameters, 4 * parameters, once)
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "optimizer.pt").write_bytes(b"x" * 24_000_000)
    check_disk(tmp_path, parameters, parameters, recipe)


def test_a_check_proves_and_plans_and_writes_nothing(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    found = check(Recipe.model_validate({**SETTINGS, "effective_batch": 8}), release, tiny_student)
    assert (found.proof.rows, found.plan.steps, found.plan.effective_batch) == (16, 16, 8)
    assert found.plan.tokens == 8 * found.proof.tokens
    assert found.plan.trained == found.plan.parameters
    assert 0 < found.plan.memory_gb < found.plan.available_gb
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_planned_steps_are_those_that_are_done(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    for settings in ({"effective_batch": 8}, {"batch_size": 3}, {"packing": True, "effective_batch": 8}):
        recipe = Recipe.model_validate({**SELDOM, "epochs": 2, **settings})
        done = train(recipe, release, tmp_path / "model", tiny_student)
        assert len(done.losses) == done.plan.steps, settings


def test_what_cannot_fit_is_refused_with_advice(
    release: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.estimate._available", lambda device: 0.5)
    with pytest.raises(UserError, match=r"estimated \d+ GB.*batch_size=1.*gradient_checkpointing=true.*zero3"):
        train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_a_disk_that_is_too_small_is_told_before_the_first_step(
    release: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("training.trainer.checkpoints.shutil.disk_usage", lambda path: small)
    with pytest.raises(UserError, match=r"model of .* take .* MB .*1\.0 kB are free.*set checkpoint_minutes=0"):
        train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student)


def test_two_processes_have_the_loss_of_one(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 2, "effective_batch": 8, "checkpoint_minutes": 0}
    one = train(Recipe.model_validate(settings), release, tmp_path / "one", tiny_student)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # What torchrun and `accelerate launch` let their processes know; on this CPU they train together by gloo.
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    pair = []
    for rank in "01":
        env = {**together, "RANK": rank, "LOCAL_RANK": rank}
        pair.append(training(settings, release, tmp_path / "two", tiny_student, **env))
    printed = [process.communicate(timeout=300) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], printed
    assert "on 2 processes" in printed[0][0]
    assert printed[1][0] == ""
    two = json.loads((tmp_path / "two" / "training.json").read_text())
    assert two["processes"] == 2
    assert len(two["loss"]) == len(one.losses)
    # Which rows share a step differs with the number of processes, so single losses do; their course does not.
    assert two["loss"][0] == pytest.approx(one.losses[0], rel=0.05)
    assert two["loss"][-1] == pytest.approx(one.losses[-1], rel=0.3)
