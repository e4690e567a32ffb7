"""Fine-tune a student on a release: TRL's SFTTrainer, loss on the assistant's tokens alone, proven before step 1.

Reads a release folder, a recipe, a student's checkpoint. Writes, all at once at the end,

    <output>/
      config.json  generation_config.json  model.safetensors    the whole model, adapters merged
      tokenizer.json  tokenizer_config.json  chat_template.jinja  the *serving* template, not the training one
      recipe.yaml  training.json  README.md                       as resolved; loss of every step, hashes; a short card

Run with `saferthoughts train RECIPE --dataset FOLDER`. One seed, machine, thread count and set of versions give the
same weights bit for bit (a test trains twice); another CPU or thread count rounds differently and drifts apart.
"""

import math
import os
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cards.model_card import RECORD
from pipelines.errors import UserError
from pipelines.progress import Meter, meter
from pipelines.runs import atomic_folder
from training.blend import blended
from training.mixture import TrainingRow
from training.model_folder import describe, save_model
from training.quiet import quiet
from training.recipe import Recipe
from training.student import check_checkpoint, fetch_student
from training.supervision import SupervisionProof, prove

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer


@dataclass(frozen=True, slots=True)
class TrainResult:
    """One finished run. `losses` holds one value a step; `trained_tokens` counts labelled tokens over all epochs.

    `seconds` is the time of the steps alone, `peak_memory_gb` the whole process's high-water mark.
    """

    model: Path
    proof: SupervisionProof
    losses: tuple[float, ...]
    trained_tokens: int
    seconds: float
    peak_memory_gb: float

    @property
    def tokens_per_s(self) -> float:
        """Trained (labelled) tokens per second of the steps."""
        return self.trained_tokens / self.seconds


def train(recipe: Recipe, dataset: Path, output: Path, student: Path | None = None) -> TrainResult:
    """Train, and put the finished model at `output`.

    Args:
        recipe: What and how; see `training.recipe`.
        dataset: A release folder.
        output: The model's folder. An earlier model there is replaced when this one is finished.
        student: A checkpoint, over the recipe's own.

    Raises:
        UserError: nothing that can be trained (dataset, student, template), a supervision proof that fails, a loss
            that is no longer a number, or an `output` that holds something else than a model of this stage.
    """
    # Read once, when torch loads OpenMP: waiting threads then sleep instead of spinning. Beside other busy processes
    # spinning made a step 3 to 10 times slower (11 to 31 tokens/s against 65 to 141).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _check_output(output)
    recipe = recipe.model_copy(update={"student": student or recipe.student})
    checkpoint = recipe.student or fetch_student()
    check_checkpoint(checkpoint)
    with quiet(), tempfile.TemporaryDirectory(prefix="saferthoughts-train-") as work:
        mixture = blended(recipe.mixture, dataset, recipe.seed, Path(work) / "cache")
        serving = _tokenizer(checkpoint)
        trainer = build_trainer(recipe, mixture.rows, checkpoint, Path(work) / "trainer")
        proof = prove(trainer, mixture.rows, serving, recipe.batch_size)
        losses, seconds = _steps(trainer)
        result = TrainResult(
            model=output,
            proof=proof,
            losses=losses,
            trained_tokens=proof.labelled * recipe.epochs,
            seconds=seconds,
            peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        )
        with atomic_folder(output) as folder:
            save_model(trainer, serving, recipe, folder)
            describe(folder, recipe, result, mixture, dataset, checkpoint)
    return result


def cpu_threads() -> int:
    """How many cores this process may really use: its affinity and its control group's quota, whichever is less.

    torch sees only the machine's cores; with more threads than quota each step waits for threads that may not run.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _check_output(output: Path) -> None:
    """A folder is replaced whole, so only one that this stage wrote may be there."""
    if output.exists() and not (output / RECORD).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"'{output}' is there and is not a model of this stage (no {RECORD}). Choose another --output.")


def _tokenizer(checkpoint: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if not tokenizer.chat_template:
        raise UserError(f"Student '{checkpoint}' has no chat template: it is a base model. Choose an instruct model.")
    return tokenizer


def build_trainer(recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path) -> "SFTTrainer":
    """The SFTTrainer of a recipe, ready to train: model loaded, rows rendered and tokenised.

    Args:
        recipe: What and how.
        rows: The rows to train on, all of them.
        checkpoint: The student's folder.
        work: A scratch folder for the trainer.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    on_gpu = torch.cuda.is_available()
    if not on_gpu and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpu_threads())
    tokenizer = _tokenizer(checkpoint)
    tokenizer.chat_template = _training_template(recipe, tokenizer, checkpoint)
    arguments = SFTConfig(
        output_dir=str(work),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.scheduler,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        max_length=recipe.max_length,
        packing=recipe.packing,
        assistant_only_loss=True,
        bf16=recipe.bf16,
        gradient_checkpointing=recipe.gradient_checkpointing,
        # Rows of like length share a batch, so that little of it is padding.
        train_sampling_strategy="random" if recipe.packing else "group_by_length",
        seed=recipe.seed,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    # float32 weights under bfloat16 arithmetic: small steps would be rounded away in bfloat16 weights.
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
    # Nothing but `messages`: a column named `prompt` would send TRL down its prompt-completion path.
    messages = Dataset.from_list([{"messages": [dict(turn) for turn in row.messages]} for row in rows])
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=messages, processing_class=tokenizer, peft_config=_adapters(recipe)
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


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


def _adapters(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=recipe.lora.r, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _steps(trainer: "SFTTrainer") -> tuple[tuple[float, ...], float]:
    """Run every step and return the losses and the seconds they took."""
    from transformers import TrainerCallback

    losses: list[float] = []

    class Shown(TrainerCallback):
        def __init__(self, shown: Meter) -> None:
            self.shown = shown
            self.started = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.shown.total = state.max_steps
            self.started = time.monotonic()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
        ) -> None:
            if not logs or "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise UserError(
                    f"The loss of step {state.global_step} is {loss}; training stopped, nothing was saved. Lower "
                    "learning_rate, or set bf16=false."
                )
            losses.append(loss)
            rate = logs.get("num_tokens", 0) / max(time.monotonic() - self.started, 1e-9)
            self.shown.note(f"loss {loss:.2f}, {rate:.0f} tokens/s")
            self.shown.advance()

    with meter("train", total=None, unit="steps") as shown:
        callback = Shown(shown)
        trainer.add_callback(callback)
        trainer.train()
        seconds = time.monotonic() - callback.started
    return tuple(losses), seconds
