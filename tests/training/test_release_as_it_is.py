"""A release goes into TRL's trainers as `load_dataset` gives it, with no column dropped or renamed first."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.data_utils import is_conversational

from cards.release.build import build_release
from curation.quality.checks import check
from pipelines.runs import RunFolder
from saferthoughts.run import Run
from training.recipes.recipe import TEMPLATES
from training.students.quiet import quiet


def test_sft_trainer_takes_a_release_as_it_is(judged: RunFolder, tiny_student: Path, tmp_path: Path) -> None:
    check(judged)
    release = build_release(judged).folder
    rows = datasets.load_dataset(str(release), "improved", split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    with quiet():
        arguments = SFTConfig(
            output_dir=str(tmp_path / "out"),
            assistant_only_loss=True,
            use_cpu=True,
            bf16=False,
            max_steps=1,
            report_to=[],
            chat_template_path=str(TEMPLATES / "smollm2.jinja"),
        )
        model = AutoModelForCausalLM.from_pretrained(tiny_student)
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        batch = trainer.data_collator([trainer.train_dataset[0]])
        done = trainer.train()
    text = tokenizer.decode(batch["labels"][batch["labels"] != -100])
    assert rows[0]["reasoning"] in text
    assert rows[0]["answer"] in text
    assert rows[0]["query"] not in text
    assert done.training_loss > 0


TRAINERS: dict[str, tuple[Any, Any, str, tuple[str, ...]]] = {
    "dpo": (DPOTrainer, DPOConfig, "preference", ("chosen", "rejected")),
    "reward": (RewardTrainer, RewardConfig, "preference", ("chosen", "rejected")),
    "kto": (KTOTrainer, KTOConfig, "unpaired", ("completion",)),
}


@pytest.fixture(scope="module")
def objectives(released_once: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, datasets.Dataset]:
    """Every configuration for another objective, of one release."""
    folder = Path(shutil.copytree(released_once, tmp_path_factory.mktemp("objectives") / "small"))
    configs = ("preference", "unpaired", "prompts", "steps")
    release = Run(RunFolder(folder)).release(configs=configs)
    cache = str(folder / "cache")
    return {name: datasets.load_dataset(str(release.path), name, split="train", cache_dir=cache) for name in configs}


# What TRL 1.16 calls is deprecated in transformers 5.23.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("objective", TRAINERS)
def test_a_trainer_of_another_objective_takes_its_config_as_it_is(
    objective: str, objectives: dict[str, datasets.Dataset], tiny_student: Path, tmp_path: Path
) -> None:
    trainer, config, name, sides = TRAINERS[objective]
    rows, tokenizer = objectives[name].select(range(6)), AutoTokenizer.from_pretrained(tiny_student)
    with quiet():
        if objective == "reward":
            model = AutoModelForSequenceClassification.from_pretrained(tiny_student, num_labels=1)
        else:
            model = AutoModelForCausalLM.from_pretrained(tiny_student)
        only = {"max_steps": 1, "per_device_train_batch_size": 2, "gradient_checkpointing": False, "report_to": []}
        arguments = config(output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=None, **only)
        made = trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        for side in sides:
            text = tokenizer.decode(made.train_dataset[0][f"{side}_ids"])
            assert made.train_dataset[0][side][0]["content"] in text, "reasoning and answer are both there"
        done = made.train()
    assert done.training_loss > 0


def test_prompts_and_steps_have_the_types_that_trl_documents(objectives: dict[str, datasets.Dataset]) -> None:
    assert is_conversational(objectives["prompts"][0])
    assert objectives["prompts"].features["prompt"] == objectives["preference"].features["prompt"]
    row = objectives["steps"][0]
    assert isinstance(row["prompt"], str)
    assert {type(label) for label in row["labels"]} <= {bool}
    assert len(row["labels"]) == len(row["completions"])
    assert row["labels"][row["first_wrong"]] is False
    assert all(row["labels"][: row["first_wrong"]])
