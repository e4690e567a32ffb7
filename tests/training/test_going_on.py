"""A training that is stopped goes on from its last checkpoint as if it had not been; what it takes is told before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.errors import UserError
from training.checkpoints import check_disk, checkpoints_in, workplace_of
from training.recipe import Recipe
from training.sft import check, train
from training.torn import fault_of

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
RUN = """
import json, sys
from pathlib import Path
from training.checkpoints import workplace_of
from training.recipe import Recipe
from training.sft import train
train(Recipe.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], print)
"""


def start(settings: dict[str, Any], release: Path, output: Path, student: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-c", RUN, json.dumps(settings), str(release), str(output), str(student)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def test_killed_and_run_again_it_ends_where_it_would_have(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 12}
    whole = train(Recipe.model_validate(settings), release, tmp_path / "whole", tiny_student)
    first = start(settings, release, tmp_path / "model", tiny_student)
    work = tmp_path / ".model.training"
    for _ in range(6000):
        if any(int(path.parent.name.partition("-")[2]) >= 6 for path in work.glob("checkpoint-*/trainer_state.json")):
            break
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "model").exists()
    second = start(settings, release, tmp_path / "model", tiny_student)
    told, errors = second.communicate(timeout=900)
    assert second.returncode == 0, errors
    step = int(told.partition("going on from step ")[2].split()[0])
    assert step >= 6
    facts = json.loads((tmp_path / "model" / "training.json").read_text())
    assert facts["resumed_from"] == step
    assert facts["loss"] == pytest.approx(whole.losses, rel=1e-4, abs=1e-4)
    ours, theirs = weights(tmp_path / "model"), weights(tmp_path / "whole")
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=1e-3)
    assert not work.exists()


def test_ctrl_c_ends_the_step_and_keeps_it(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    # Long enough to be stopped, and without a checkpoint by the clock.
    settings = {**SETTINGS, "epochs": 12, "checkpoint_minutes": 60}
    first = start(settings, release, tmp_path / "model", tiny_student)
    assert first.stdout is not None
    assert "estimated" in first.stdout.readline() + first.stdout.readline()
    time.sleep(0.5)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 1
    stopped = int(errors.rpartition("Stopped after step ")[2].split()[0])
    work = tmp_path / ".model.training"
    assert (work / f"checkpoint-{stopped}" / "trainer_state.json").is_file()
    told: list[str] = []
    done = train(Recipe.model_validate(settings), release, tmp_path / "model", tiny_student, told.append)
    assert (done.resumed_from, len(done.losses)) == (stopped, 96)
    assert f"going on from step {stopped}" in told


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
    done = train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student)
    assert done.resumed_from == 0
    assert len(done.losses) == 64


def test_a_torn_checkpoint_is_set_aside_and_the_one_before_it_gone_on_from(
    release: Path, tiny_student: Path, tmp_path: Path
) -> None:
    stopped = start(SETTINGS, release, tmp_path / "model", tiny_student)
    work = tmp_path / ".model.training"
    for _ in range(15000):
        if any(work.glob("checkpoint-*/trainer_state.json")):
            break
        time.sleep(0.02)
    os.kill(stopped.pid, signal.SIGKILL)
    stopped.communicate()
    whole = next(path for path in checkpoints_in(work) if not fault_of(path))
    for path in checkpoints_in(work):
        if path != whole:
            shutil.rmtree(path)
    step = int(whole.name.partition("-")[2])
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
    told: list[str] = []
    done = train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student, told.append)
    assert done.resumed_from == step
    assert any(f"checkpoint-{step + 1} cannot be gone on from" in line and "set aside" in line for line in told)


# What a full disk, a power cut and a kill do to a file.
FAULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "missing": lambda path: path.unlink(),
}


def test_a_checkpoint_that_is_held_counts_as_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shutil.disk_usage(tmp_path)._replace(free=30_000_000)
    monkeypatch.setattr("training.checkpoints.shutil.disk_usage", lambda path: small)
    parameters = 2_000_000  # two checkpoints of 24 MB and a model of 4 MB
    with pytest.raises(UserError, match=r"take 52\.0 MB under .*, and 30\.0 MB are free\."):
        check_disk(tmp_path, parameters, parameters)
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "optimizer.pt").write_bytes(b"x" * 24_000_000)
    check_disk(tmp_path, parameters, parameters)


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
        recipe = Recipe.model_validate({**SETTINGS, "epochs": 2, **settings})
        done = train(recipe, release, tmp_path / "model", tiny_student)
        assert len(done.losses) == done.plan.steps, settings


def test_what_cannot_fit_is_refused_with_advice(
    release: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.estimate._available", lambda device: 0.5)
    with pytest.raises(UserError, match=r"estimated \d+ GB.*batch_size=1.*gradient_checkpointing=true.*zero3"):
        train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_a_disk_that_is_too_small_is_told_before_the_first_step(
    release: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("training.checkpoints.shutil.disk_usage", lambda path: small)
    with pytest.raises(UserError, match=r"model take .* MB .*1\.0 kB are free.*set checkpoint_minutes=0"):
        train(Recipe.model_validate(SETTINGS), release, tmp_path / "model", tiny_student)


def test_two_processes_have_the_loss_of_one(
    release: Path, tiny_student: Path, tmp_path: Path, start_two: Callable[..., str]
) -> None:
    settings = {**SETTINGS, "epochs": 2, "effective_batch": 8, "checkpoint_minutes": 0}
    one = train(Recipe.model_validate(settings), release, tmp_path / "one", tiny_student)
    told = start_two(RUN, json.dumps(settings), str(release), str(tmp_path / "two"), str(tiny_student))
    assert "on 2 processes" in told
    two = json.loads((tmp_path / "two" / "training.json").read_text())
    assert two["processes"] == 2
    assert len(two["loss"]) == len(one.losses)
    # Which rows share a step differs with the number of processes, so single losses do; their course does not.
    assert two["loss"][0] == pytest.approx(one.losses[0], rel=0.05)
    assert two["loss"][-1] == pytest.approx(one.losses[-1], rel=0.3)


@pytest.fixture
def start_two(tmp_path: Path) -> Callable[..., str]:
    """Run a piece of Python in two processes that train together on this CPU (gloo)."""

    def run(code: str, *arguments: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(code)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(script), *arguments], capture_output=True, text=True, env=env, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
