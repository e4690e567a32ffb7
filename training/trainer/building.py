"""What the trainers of all objectives are built from: tokenizer, training template, arguments, weights, adapters.

Reads a checkpoint's folder; writes nothing. Used by the files of training/objectives.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from training.mixtures.mixture import TrainingRow
from training.recipes.recipe import Recipe
from training.students.arithmetic import bf16_pays, cpu_threads
from training.students.loading import load_model, load_scorer, load_tokenizer
from training.trainer.checkpoints import processes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def has_gpu() -> bool:
    """Whether there is a GPU; without one, torch is given the cores that this process may use."""
    import torch

    if torch.cuda.is_available():
        return True
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpu_threads())
    return False


def tokenizer_of(checkpoint: Path) -> "PreTrainedTokenizerBase":
    """The student's tokenizer, as it is served.

    Raises:
        UserError: it has no chat template.
    """
    from transformers import PreTrainedTokenizerBase

    tokenizer = load_tokenizer(checkpoint)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if not tokenizer.chat_template:
        raise UserError(f"Student '{checkpoint}' has no chat template: it is a base model. Choose an instruct model.")
    return tokenizer


def training_tokenizer(recipe: Recipe, checkpoint: Path) -> "PreTrainedTokenizerBase":
    """The student's tokenizer with the chat template that it is trained with.

    Raises:
        UserError: no template that keeps apart what the assistant writes.
    """
    tokenizer = tokenizer_of(checkpoint)
    tokenizer.chat_template = _training_template(recipe, tokenizer, checkpoint)
    return tokenizer


def arguments_of(recipe: Recipe, work: Path, accumulation: int) -> dict[str, Any]:
    """The arguments that the trainers of all objectives share.

    Args:
        work: The trainer's folder: checkpoints and logs.
        accumulation: Batches a step on each process.
    """
    on_gpu = has_gpu()
    return {
        "output_dir": str(work),
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": accumulation,
        "bf16": recipe.bf16 and bf16_pays(),
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "seed": recipe.seed,
        "ddp_backend": "gloo" if processes() > 1 and not on_gpu else None,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": recipe.report_to,
        # Checkpoints are asked for by the clock (training/trainer/checkpoints.py), never by the step.
        "save_strategy": "steps" if recipe.checkpoint_minutes else "no",
        "save_steps": 10**9,
        "save_total_limit": 1,
        "use_liger_kernel": recipe.liger,
        "disable_tqdm": True,
    }


def _training_template(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", checkpoint: Path) -> str:
    """The recipe's chat template, or TRL's training form of the student's own."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = recipe.template_text()
    if template is None:
        try:
            template = get_training_chat_template(tokenizer) or str(tokenizer.chat_template)
        except ValueError as error:
            raise UserError(
                f"Student '{checkpoint}' has a chat template without generation markers that TRL has no training form "
                "of. Name one with --set chat_template=..., a file of training/chat_templates or a path."
            ) from error
    if not has_generation_markers(template):
        raise UserError(
            f"Chat template '{recipe.chat_template}' has no {{% generation %}} markers around what the assistant "
            "writes, so nothing could be told apart to train on."
        )
    return template


def weights_of(recipe: Recipe, checkpoint: Path, scorer: bool = False) -> Any:
    """The student's weights, ready to be trained; with a head that gives one number where a scorer is wanted."""
    import torch

    on_gpu = has_gpu()
    # float32 weights under bfloat16 arithmetic: small steps would be rounded away in bfloat16 weights. Weights under
    # adapters take no steps.
    frozen = recipe.lora is not None and recipe.bf16 and on_gpu
    settings: dict[str, Any] = {
        "dtype": torch.bfloat16 if frozen else torch.float32,
        "attn_implementation": recipe.attention,
        "quantization_config": _quantization(recipe, on_gpu),
    }
    if not scorer:
        return load_model(checkpoint, **settings)
    torch.manual_seed(recipe.seed)  # its head is drawn
    return load_scorer(checkpoint, **settings)


def _quantization(recipe: Recipe, on_gpu: bool) -> Any:
    if recipe.quantize is None:
        return None
    if not on_gpu:
        raise UserError("quantize=4bit needs a GPU, and there is none. Take the recipe's lora form.")
    import bitsandbytes  # noqa: F401  imported so that the error names it
    import torch
    import transformers

    settings: Any = transformers.BitsAndBytesConfig
    return settings(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def adapters_of(recipe: Recipe, task: str = "CAUSAL_LM") -> Any:
    """The recipe's adapters for peft, None without any."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=recipe.lora.r, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type=task)


def responses_of(rows: Sequence[TrainingRow]) -> Any:
    """Prompts with their responses, as TRL's trainers take them: chosen and rejected, or a completion and its label."""
    from datasets import Dataset

    def values(row: TrainingRow) -> dict[str, Any]:
        prompt = [dict(turn) for turn in row.messages[:-1]]
        if row.rejected is None:
            return {"prompt": prompt, "completion": [dict(row.messages[-1])], "label": row.label}
        margin = {} if row.margin is None else {"margin": row.margin}
        return {"prompt": prompt, "chosen": [dict(row.messages[-1])], "rejected": [dict(row.rejected[-1])], **margin}

    return Dataset.from_list([values(row) for row in rows])


def finished(
    kind: Any, recipe: Recipe, arguments: Any, dataset: Any, tokenizer: Any, model: Any, **settings: Any
) -> Any:
    """A trainer of a kind with a recipe's adapters, and without the printing that we do ourselves."""
    from transformers.trainer_callback import PrinterCallback

    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=adapters_of(recipe, "SEQ_CLS" if recipe.objective == "rm" else "CAUSAL_LM"),
        **settings,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
