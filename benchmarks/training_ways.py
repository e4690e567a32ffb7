"""The ways that `benchmarks.training` measures; it runs each in a process of its own, as this module.

Reads a student; prints one line of JSON: labelled tokens a second over one epoch, and what a batch holds. `plain` is
TRL's SFTTrainer and nothing of ours but the rows and the chat template with its generation markers, without which it
could not tell what to train on; the others are `training.stage.build_trainer`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# What each way changes of the plain one. `grouped` puts rows of like length into a batch.
WAYS: dict[str, dict[str, bool]] = {
    "plain": {},
    "grouping by length": {"grouped": True},
    "packing": {"packing": True},
    "no gradient checkpointing": {"gradient_checkpointing": False},
    "grouping, no checkpointing": {"grouped": True, "gradient_checkpointing": False},
    "packing, no checkpointing": {"packing": True, "gradient_checkpointing": False},
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a step is: rows of a padded batch, as in the study's script, and the length of a packed sequence, which
    holds about as much. Rows are `shorter` times shorter than the study's, for a CPU's patience."""

    shorter: float
    packed_length: int
    lora: bool
    batch_size: int = 8


SCALES = {
    "smollm2-135m": Scale(shorter=4, packed_length=1024, lora=False),
    # In the shapes of Qwen2, with random weights: 1.5B all of it, 7B under adapters, as one GPU holds them.
    "qwen2-1.5b": Scale(shorter=1, packed_length=4096, lora=False),
    "qwen2-7b": Scale(shorter=1, packed_length=4096, lora=True),
}
_SHAPES: dict[str, dict[str, Any]] = {
    "qwen2-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    "qwen2-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}


def measured(student: Path, scale: Scale, way: str, count: int) -> dict[str, float | str]:
    """Train one epoch on `count` rows, every way on the same ones and all of them."""
    from benchmarks.training_rows import study_rows
    from training.estimate import flops_of, peak_flops
    from training.quiet import quiet

    rows = study_rows(count, scale.shorter)
    with quiet(), tempfile.TemporaryDirectory() as work:
        trainer = _trainer(way, rows, student, scale, Path(work))
        batches, ends, busy = _watched(trainer)
        trainer.train()
        model: Any = trainer.model
    seconds = ends[-1] - ends[0]
    labelled, attended, positions = (sum(one[part] for one in batches) for part in range(3))
    device = str(trainer.args.device.type)
    parameters = [(p.numel(), p.requires_grad) for p in model.parameters()]
    work_done = flops_of(sum(n for n, _ in parameters), sum(n for n, moves in parameters if moves), attended)
    return {
        "tokens_per_s": labelled / seconds,
        "tokens_per_cpu_s": labelled / (busy[-1] - busy[0]),
        "label_share": labelled / positions,
        "padding": 1 - attended / positions,
        "seconds_a_step": seconds / (len(ends) - 1),
        "tokens_a_step": attended / (len(ends) - 1),
        "rows": len(rows),
        "mfu": work_done / seconds / peak_flops(device, bf16=True),
        "device": device,
    }


def _trainer(way: str, rows: Sequence[Any], student: Path, scale: Scale, work: Path) -> Any:
    return _plain(rows, student, scale, work) if way == "plain" else _ours(WAYS[way], rows, student, scale, work)


def _plain(rows: Sequence[Any], student: Path, scale: Scale, work: Path) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from training.recipe import TEMPLATES

    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(work / "plain"),
        num_train_epochs=1,
        learning_rate=5e-6,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=scale.batch_size,
        gradient_accumulation_steps=1,
        max_length=4096,
        bf16=True,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        assistant_only_loss=True,
        chat_template_path=str(TEMPLATES / "smollm2.jinja"),
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=42,
    )
    frozen = scale.lora and on_gpu
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(student, dtype=torch.bfloat16 if frozen else torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list([{"messages": [dict(turn) for turn in row.messages]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(student),
        peft_config=_adapters() if scale.lora else None,
    )


def _adapters() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")


def _ours(changed: dict[str, bool], rows: Sequence[Any], student: Path, scale: Scale, work: Path) -> Any:
    from training.objectives.sft import build_trainer
    from training.recipe import Recipe

    packing = changed.get("packing", False)
    recipe = Recipe.model_validate(
        {
            "mixture": {"improved": 1},
            "chat_template": "smollm2",
            "batch_size": 1 if packing else scale.batch_size,
            "max_length": scale.packed_length if packing else 4096,
            "packing": packing,
            "gradient_checkpointing": changed.get("gradient_checkpointing", True),
            "report_to": "none",
            "checkpoint_minutes": 0,
            **({"lora": {"r": 32, "alpha": 64}} if scale.lora else {}),
        }
    )
    trainer = build_trainer(recipe, rows, student, work / "ours")
    # A recipe groups whatever it does not pack; alone, each other lever is measured in random order.
    trainer.grouped = changed.get("grouped", False)
    return trainer


def _watched(trainer: Any) -> tuple[list[tuple[int, int, int]], list[float], list[float]]:
    """Each batch's labelled tokens, tokens and positions; the beginning and each step's end, by the clock and in time
    of the processor. All of them are filled while it trains.
    """
    from transformers import TrainerCallback

    batches: list[tuple[int, int, int]] = []
    ends: list[float] = []
    busy: list[float] = []
    collate = trainer.data_collator

    def counting(rows: Any) -> Any:
        batch = collate(rows)
        labels = batch["labels"]
        attended = batch["attention_mask"].sum() if "attention_mask" in batch else labels.numel()
        batches.append((int((labels != -100).sum()), int(attended), labels.numel()))
        return batch

    class Clock(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.on_step_end(args, state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())
            busy.append(time.process_time())

    trainer.data_collator = counting
    trainer.add_callback(Clock())
    return batches, ends, busy


def made_student(name: str, folder: Path) -> Path:
    """The bundled student, or a checkpoint of random weights in another model's shape, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    from training.student import fetch_student

    bundled = fetch_student()
    if name not in _SHAPES:
        return bundled
    tokenizer = AutoTokenizer.from_pretrained(bundled)
    ends: dict[str, Any] = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    config = Qwen2Config(vocab_size=151936, **_SHAPES[name], **ends)
    untyped: Any = AutoModelForCausalLM
    with torch.device("cuda"):
        model = untyped.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / name)
    # The ways are processes of their own and need the room.
    del model
    torch.cuda.empty_cache()
    tokenizer.save_pretrained(folder / name)
    return folder / name


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("student", type=Path)
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("rows", type=int)
    parser.add_argument("--shorter", type=float, default=1, help="rows are so much shorter still")
    options = parser.parse_args()
    scale = SCALES[options.scale]
    scale = replace(scale, shorter=scale.shorter * options.shorter)
    print(json.dumps(measured(options.student, scale, options.way, options.rows)))
