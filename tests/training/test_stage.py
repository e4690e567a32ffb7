import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.errors import Incomplete, UserError
from pipelines.runs import file_hash
from pipelines.settings.overrides import settings_of
from tests.training.conftest import release_rows, written_release
from training.mixtures.mixture import draw
from training.objectives.sft import build_trainer
from training.recipes.recipe import Recipe, load_recipe
from training.stage import TrainingResult, is_trained, train
from training.students.arithmetic import cpu_threads
from training.students.quiet import quiet
from training.trainer.model_folder import merged_anew


def recipe_of(**changed: Any) -> Recipe:
    settings = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "gradient_checkpointing": False, **changed}
    mixture = {"improved": 10, "benign": 6}
    return Recipe.model_validate({"mixture": mixture, "chat_template": "smollm2", "max_length": 512, **settings})


@pytest.fixture
def trained(release: Path, tiny_student: Path, tmp_path: Path) -> Callable[..., TrainingResult]:
    """Train the tiny student on the small release."""

    def run(output: str = "model", **recipe: Any) -> TrainingResult:
        return train(recipe_of(**recipe), release, tmp_path / output, tiny_student)

    return run


@pytest.fixture(scope="module")
def model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A trained one that tests only read."""
    folder = tmp_path_factory.mktemp("trained")
    rows = {"improved": release_rows("harmful", 10), "benign": release_rows("benign", 6)}
    return train(recipe_of(), written_release(folder / "release", rows), folder / "model", tiny_student)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_train_leaves_a_whole_model(
    trained: Callable[..., TrainingResult], tmp_path: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained(epochs=6)
    folder = tmp_path / "model"
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert len(result.losses) == 6 * 4
    assert result.losses[-1] < 0.5 * result.losses[0]
    assert facts["loss"] == list(result.losses)
    assert facts["rows"] == {"improved": {"harmful": 10}, "benign": {"benign": 6}}
    assert facts["trained_tokens"] == result.trained_tokens == 6 * result.proof.labelled
    assert facts["student"] == {
        "model": "tiny",
        "source": "tiny",
        "weights_sha256": file_hash(tiny_student / "model.safetensors"),
        "wheel": None,
        "license": None,
    }
    assert len(facts["dataset"]["files"]) == 2
    assert load_recipe(str(folder / "recipe.yaml")).epochs == 6
    assert "improved: 10 harmful; benign: 6 benign" in (folder / "README.md").read_text(encoding="utf-8")
    assert hidden(tmp_path) == []
    assert capsys.readouterr().out == ""


def test_trained_model_is_served_with_the_students_own_template(model: TrainingResult, tiny_student: Path) -> None:
    folder = model.model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_student).chat_template
    assert "generation %" not in tokenizer.chat_template
    served = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How do I forge letter number 3?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert served.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] == prompt["input_ids"].shape[1] + 4


def test_training_twice_gives_the_same_weights(model: TrainingResult, trained: Callable[..., TrainingResult]) -> None:
    first, second, other = model, trained("two"), trained("three", seed=7)
    weights = [file_hash(result.model / "model.safetensors") for result in (first, second, other)]
    assert first.losses == second.losses
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    "recipe",
    [
        {"lora": {"r": 4, "alpha": 8}},
        {"packing": True},
        {"gradient_checkpointing": True},
        {"bf16": False, "gradient_accumulation": 2},
    ],
    ids=["lora", "packing", "gradient checkpointing", "float32 with accumulation"],
)
def test_every_way_of_training_changes_a_model_that_loads(
    trained: Callable[..., TrainingResult], tiny_student: Path, recipe: dict[str, Any]
) -> None:
    result = trained(epochs=3, **recipe)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_student, result.model))
    assert result.losses[-1] < result.losses[0]
    assert set(before.state_dict()) == set(after.state_dict())
    layer = "model.layers.0.mlp.down_proj.weight"
    assert not before.state_dict()[layer].float().allclose(after.state_dict()[layer].float(), atol=1e-3)


def test_what_is_trained_is_known_by_its_recipe_rows_and_student(
    model: TrainingResult, release: Path, tiny_student: Path
) -> None:
    folder = model.model
    recipe = load_recipe(str(folder / "recipe.yaml")).model_copy(update={"student": str(tiny_student)})
    assert is_trained(recipe, release, folder)
    assert is_trained(recipe.model_copy(update={"report_to": "none"}), release, folder)
    assert not is_trained(recipe.model_copy(update={"seed": 7}), release, folder)
    assert not is_trained(recipe.model_copy(update={"mixture": {"improved": 9, "benign": 6}}), release, folder)
    assert not is_trained(recipe, release, folder.parent / "elsewhere")


def test_the_logs_have_the_pace_of_every_step(trained: Callable[..., TrainingResult]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = trained(report_to="tensorboard")
    (events,) = (result.model / "tensorboard").rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events))
    read.Reload()
    for name in ("train/loss", "train/trained_tokens_per_s", "train/mfu"):
        assert len(read.Scalars(name)) == len(result.losses), name
    # Of a machine whose rate is measured while others use it, the share may be over 1.
    assert all(0 < scalar.value < math.inf for scalar in read.Scalars("train/mfu"))
    assert all(scalar.value > 0 for scalar in read.Scalars("train/trained_tokens_per_s"))


def test_adapters_over_quantised_weights_are_merged_into_whole_ones(
    release: Path, tiny_student: Path, tmp_path: Path
) -> None:
    settings = {"lora": {"r": 4, "alpha": 8}, "chat_template": "smollm2", "gradient_checkpointing": False}
    recipe = Recipe.model_validate({"mixture": {"improved": 4}, "max_length": 512, "learning_rate": 1e-2, **settings})
    with quiet():
        rows = draw(release, {"improved": 4}, 1, tmp_path / "cache").rows
        trainer = build_trainer(recipe, rows, tiny_student, tmp_path / "trainer")
        trainer.train()
        # Into the student's own weights, which four-bit ones only stand for.
        whole = merged_anew(trainer.model, tiny_student).state_dict()
        in_place = trainer.model.merge_and_unload().state_dict()
    assert set(whole) == set(in_place)
    for name, value in in_place.items():
        torch.testing.assert_close(whole[name].float(), value.float(), rtol=1e-2, atol=1e-2)


def test_train_replaces_an_earlier_model_and_nothing_else(
    model: TrainingResult, trained: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    shutil.copytree(model.model, tmp_path / "model")
    trained(seed=7)
    assert load_recipe(str(tmp_path / "model" / "recipe.yaml")).seed == 7
    keep = tmp_path / "mine" / "notes.txt"
    keep.parent.mkdir()
    keep.write_text("keep", encoding="utf-8")
    with pytest.raises(UserError, match="is not a model of this stage"):
        trained("mine")
    assert keep.read_text(encoding="utf-8") == "keep"


def test_a_failed_proof_leaves_nothing(trained: Callable[..., TrainingResult], tmp_path: Path) -> None:
    # R1's marks are no ChatML: the student would be trained behind another prompt than it is served with.
    with pytest.raises(UserError, match="is trained behind another prompt than it is served with"):
        trained(chat_template="r1-distill")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_a_loss_that_diverges_stops_the_run(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    # Ten times as far from one step to the next as without: the loss is over ten times the first on any processor.
    far = shutil.copytree(tiny_student, tmp_path / "far")
    model = AutoModelForCausalLM.from_pretrained(far)
    model.model.norm.weight.data *= 10
    model.save_pretrained(far)
    settings = {"mixture": {"improved": 4}, "batch_size": 1, "learning_rate": 1.0, "scheduler": "constant"}
    recipe = recipe_of(**settings, checkpoint_minutes=1e-9)
    message = r"is \d+, ten times the lowest before \(\d\.\d+\): .*checkpoint-\d is kept\. Lower learning_rate \(1 "
    with pytest.raises(Incomplete, match=message) as error:
        train(recipe, release, tmp_path / "model", far)
    step = int(str(error.value).partition("step ")[2].split()[0])
    assert [path.name for path in (tmp_path / ".model.training").glob("checkpoint-*")] == [f"checkpoint-{step - 1}"]
    done = train(recipe.model_copy(update={"stop_when_diverging": False}), release, tmp_path / "model", far)
    assert (done.resumed_from, len(done.losses)) == (step - 1, 8)


def test_loss_that_is_no_number_stops_the_run(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_student, tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(broken)
    with pytest.raises(Incomplete, match=r"step 1 of 8 is nan: .* no checkpoint was saved yet\. Lower learning_rate"):
        train(recipe_of(), release, tmp_path / "model", broken)
    assert not (tmp_path / "model").exists()


def test_student_without_chat_template_is_refused(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_student, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template: it is a base model"):
        train(Recipe(mixture={"improved": 4}), release, tmp_path / "model", base)


def test_student_that_is_no_checkpoint_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a checkpoint"):
        train(Recipe(mixture={"improved": 4}), release, tmp_path / "model", release)


def test_template_without_generation_markers_is_refused(trained: Callable[..., TrainingResult]) -> None:
    with pytest.raises(UserError, match="has a chat template without generation markers"):
        trained(chat_template=None)


@pytest.mark.timeout(1200)
def test_real_student_learns_from_one_step(release: Path, real_student: Path, tmp_path: Path) -> None:
    settings = ["mixture={improved: 1, benign: 1}", "epochs=2", "batch_size=2"]
    recipe = load_recipe("smollm2-135m-cpu", settings_of(settings))
    result = train(recipe, release, tmp_path / "model", real_student)
    assert result.losses[-1] < result.losses[0]
    assert result.proof.example[0].text.endswith("<|im_start|>assistant\n")
    assert result.proof.example[1].text.startswith("<think>\n")


def test_cpu_threads_fit_the_machine() -> None:
    assert 1 <= cpu_threads() <= len(os.sched_getaffinity(0))
