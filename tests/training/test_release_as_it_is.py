"""A release goes into TRL's SFTTrainer as `load_dataset` gives it, with no column dropped or renamed first."""

from pathlib import Path

import datasets
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from cards.release import build_release
from curation.quality.checks import check
from pipelines.runs import RunFolder
from training.quiet import quiet
from training.recipe import TEMPLATES


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
