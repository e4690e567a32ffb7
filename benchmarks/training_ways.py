"""The ways that `benchmarks.training` measures; it runs each in a process of its own, as this module.

Reads a student; prints one line of JSON: labelled tokens a second over one epoch, and what a batch holds. `plain` is
TRL's own trainer of the objective and nothing of ours but the rows and the chat template with its generation markers,
without which it could not tell what to train on; the others are the trainers of training/objectives. Of pairs and
labels the log-probabilities of the reference are part of the time.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

# What each way changes of the plain one. `grouped` puts rows of like length into a batch.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouping by length": {"grouped": True},
    "packing": {"packing": True},
    "no gradient checkpointing": {"gradient_checkpointing": False},
    "grouping, no checkpointing": {"grouped": True, "gradient_checkpointing": False},
    "packing, no checkpointing": {"packing": True, "gradient_checkpointing": False},
}
_FLASH = {"attention": "flash_attention_2"}
# With what only a GPU has.
GPU_WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouping": {"grouped": True},
    "packing": {"packing": True},
    "flash attention": _FLASH,
    "liger": {"liger": True},
    "packing, flash attention": {"packing": True, **_FLASH},
    "packing, flash attention, liger": {"packing": True, "liger": True, **_FLASH},
    "packing, flash attention, liger, no checkpointing": {
        "packing": True,
        "liger": True,
        "gradient_checkpointing": False,
        **_FLASH,
    },
}
# Of the other objectives, which group by themselves and never pack.
OTHER_WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ours": {"gradient_checkpointing": False},
    "ours, checkpointing": {},
    "ours, flash attention": {"gradient_checkpointing": False, **_FLASH},
}
EVERY_WAY = {**OTHER_WAYS, **GPU_WAYS, **WAYS}
# TRL's configuration and trainer of each; GRPO is not among them, whose time is the student's own writing.
OBJECTIVES = {
    "sft": ("sft_config.SFTConfig", "sft_trainer.SFTTrainer"),
    "dpo": ("dpo_config.DPOConfig", "dpo_trainer.DPOTrainer"),
    "kto": ("kto_config.KTOConfig", "kto_trainer.KTOTrainer"),
    "rm": ("reward_config.RewardConfig", "reward_trainer.RewardTrainer"),
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
    # Tries the way there is on a CPU, in seconds; its figures mean nothing.
    "toy": Scale(shorter=16, packed_length=256, lora=False, batch_size=2),
}
_SHAPES: dict[str, dict[str, Any]] = {
    "toy": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
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


def measured(student: Path, scale: Scale, way: str, count: int, objective: str = "sft") -> dict[str, float | str]:
    """Train one epoch on `count` rows, every way on the same ones and all of them."""
    from benchmarks.training_rows import study_rows
    from training.students.quiet import quiet
    from training.trainer.estimate import flops_of, peak_flops

    rows = study_rows(count, scale.shorter, objective)
    with quiet(), tempfile.TemporaryDirectory() as work:
        build = _plain if way == "plain" else _ours
        trainer = build(way, rows, student, scale, Path(work), objective)
        batches, ends, busy = _watched(trainer)
        began = time.perf_counter(), time.process_time()
        trainer.train()
        if objective != "sft":  # the reference's pass may come before the steps
            ends[0], busy[0] = began
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


def _plain(way: str, rows: Sequence[Any], student: Path, scale: Scale, work: Path, objective: str) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from training.recipes.recipe import TEMPLATES
    from training.trainer.building import responses_of

    on_gpu = torch.cuda.is_available()
    config, kind = (_named(name) for name in OBJECTIVES[objective])
    tokenizer: Any = AutoTokenizer.from_pretrained(student)
    own: dict[str, Any] = {}
    if objective == "sft":
        template = str(TEMPLATES / "smollm2.jinja")
        own = {"max_length": 4096, "assistant_only_loss": True, "chat_template_path": template}
        dataset: Any = Dataset.from_list([{"messages": [dict(turn) for turn in row.messages]} for row in rows])
    else:
        tokenizer.chat_template = (TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8")
        dataset = responses_of(rows)
    arguments = config(
        output_dir=str(work / "plain"),
        num_train_epochs=1,
        learning_rate=5e-6,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=scale.batch_size,
        gradient_accumulation_steps=1,
        bf16=True,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=42,
        **own,
    )
    dtype = torch.bfloat16 if scale.lora and on_gpu else torch.float32
    untyped: Any = AutoModelForSequenceClassification if objective == "rm" else AutoModelForCausalLM
    scorer = {"num_labels": 1} if objective == "rm" else {}
    return kind(
        model=untyped.from_pretrained(student, dtype=dtype, **scorer),
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=_adapters(objective) if scale.lora else None,
    )


def _named(name: str) -> Any:
    module, _, attribute = name.partition(".")
    return getattr(import_module(f"trl.trainer.{module}"), attribute)


def _adapters(objective: str) -> Any:
    from peft import LoraConfig

    task: Any = "SEQ_CLS" if objective == "rm" else "CAUSAL_LM"
    return LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type=task)


def _ours(way: str, rows: Sequence[Any], student: Path, scale: Scale, work: Path, objective: str) -> Any:
    from training.objective import objective_of
    from training.recipes.recipe import Recipe

    changed = EVERY_WAY[way]
    packing = changed.get("packing", False)
    recipe = Recipe.model_validate(
        {
            "mixture": {"improved": 1},
            "objective": objective,
            "chat_template": "smollm2",
            "batch_size": 1 if packing else scale.batch_size,
            "max_length": scale.packed_length if packing else 4096,
            "packing": packing,
            "gradient_checkpointing": changed.get("gradient_checkpointing", True),
            "attention": changed.get("attention"),
            "liger": changed.get("liger", False),
            "report_to": "none",
            "checkpoint_minutes": 0,
            **({"lora": {"r": 32, "alpha": 64}} if scale.lora else {}),
        }
    )
    trainer = objective_of(recipe).build(recipe, rows, student, work / "ours", 1)
    # A recipe groups whatever it does not pack; alone, each other lever of SFT is measured in random order.
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
        positions = batch["input_ids"].numel()
        attended = int(batch["attention_mask"].sum()) if "attention_mask" in batch else positions
        learned = (batch["labels"] != -100).sum() if "labels" in batch else batch.get("completion_mask", attended)
        batches.append((int(learned if isinstance(learned, int) else learned.sum()), attended, positions))
        return batch

    class Clock(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            batches.clear()  # of a reference's pass
            self.on_step_end(args, state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())
            busy.append(time.process_time())

    trainer.data_collator = counting
    trainer.add_callback(Clock())
    return batches, ends, busy


def made_student(name: str, folder: Path) -> Path:
    """The bundled student, or a checkpoint of random weights in another model's shape, for which nothing is fetched."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    from training.students.student import fetch_student

    if name not in _SHAPES:
        return fetch_student()
    tokenizer = _tokenizer()
    ends: dict[str, Any] = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    vocabulary = len(tokenizer) if name == "toy" else 151936
    config = Qwen2Config(vocab_size=vocabulary, **_SHAPES[name], **ends)
    untyped: Any = AutoModelForCausalLM
    on_gpu = torch.cuda.is_available()
    with torch.device("cuda" if on_gpu else "cpu"):
        model = untyped.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / name)
    # The ways are processes of their own and need the room.
    del model
    if on_gpu:
        torch.cuda.empty_cache()
    tokenizer.save_pretrained(folder / name)
    return folder / name


def _tokenizer() -> Any:
    """Words of the rows as tokens, with ChatML's markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from benchmarks.training_rows import study_rows
    from training.recipes.recipe import TEMPLATES

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([turn["content"] for row in study_rows(44, 1) for turn in row.messages], learner)
    template = (TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("student", type=Path)
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("way", choices=EVERY_WAY)
    parser.add_argument("rows", type=int)
    parser.add_argument("--shorter", type=float, default=1, help="rows are so much shorter still")
    parser.add_argument("--objective", choices=OBJECTIVES, default="sft")
    options = parser.parse_args()
    scale = SCALES[options.scale]
    scale = replace(scale, shorter=scale.shorter * options.shorter)
    print(json.dumps(measured(options.student, scale, options.way, options.rows, options.objective)))
