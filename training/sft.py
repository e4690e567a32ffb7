"""Fine-tune a student on a release: TRL's SFTTrainer, loss on the assistant's tokens (`loss_on`), proven before step 1.

Reads a release folder, a recipe, a student's checkpoint. Writes, all at once at the end,

    <output>/
      config.json  generation_config.json  model.safetensors    the whole model, adapters merged
      tokenizer.json  tokenizer_config.json  chat_template.jinja  the *serving* template, not the training one
      recipe.yaml  training.json  README.md                       as resolved; loss of every step, hashes; a short card

Run with `saferthoughts train RECIPE --dataset FOLDER`, on several GPUs `accelerate launch --config_file
training/accelerate/zero2.yaml -m saferthoughts train ...`. One seed, machine, thread count and set of versions give the
same weights bit for bit (a test trains twice); another CPU or thread count rounds differently and drifts apart.
"""

import json
import os
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cards.model_card import RECORD
from pipelines.errors import UserError
from pipelines.files import atomic_folder, recover, scratch_folder
from training.arithmetic import bf16_pays
from training.checkpoints import Workplace, check_disk, fingerprint_of, is_main, processes, workplace_of
from training.decoding import ReplyDecoder
from training.estimate import Plan, flops_of, plan_of
from training.lengths import Fitting, fitting, positions_of
from training.loading import load_model, load_tokenizer
from training.mixture import TrainingRow
from training.mixture_rows import blended
from training.model_folder import describe, save_model, whole_state
from training.quiet import quiet
from training.recipe import Recipe
from training.steps import run_steps
from training.student import checkpoint_of, weights_hash
from training.supervision import SupervisionProof, prove

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig

    from training.student_trainer import StudentTrainer


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """One finished run. `losses` holds one value a step; `trained_tokens` counts labelled tokens over all epochs.

    `seconds` is the time of the steps alone, `peak_memory_gb` the whole process's high-water mark.
    """

    model: Path
    proof: SupervisionProof
    losses: tuple[float, ...]
    trained_tokens: int
    seconds: float
    peak_memory_gb: float
    plan: Plan
    resumed_from: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Trained (labelled) tokens per second of the steps, those that were done now."""
        done = 1 - self.resumed_from / len(self.losses)
        return self.trained_tokens * done / self.seconds

    @property
    def utilisation(self) -> float:
        """The share of the machine's products that the steps made use of (MFU); see `training.estimate.peak_flops`."""
        done = 1 - self.resumed_from / len(self.losses)
        plan = self.plan
        work = flops_of(plan.parameters, plan.trained, plan.tokens) * done
        return work / self.seconds / plan.peak_flops / plan.processes


@dataclass(frozen=True, slots=True)
class TrainingCheck:
    """What is proven and planned of a training that has not begun; `decoding`: how its reasoning is marked."""

    plan: Plan
    proof: SupervisionProof
    decoding: str


def check(recipe: Recipe, dataset: Path, student: str | Path | None = None) -> TrainingCheck:
    """Prove and plan a training, and begin nothing: `saferthoughts train --check`.

    Raises:
        UserError: as `train` does before its first step.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with quiet(), scratch_folder("train") as work:
        ready = _ready(_draw(recipe, dataset, student, work), work)
        return TrainingCheck(ready.plan, ready.proof, ReplyDecoder(ready.drawn.serving).described())


def train(
    recipe: Recipe,
    dataset: Path,
    output: Path,
    student: str | Path | None = None,
    report: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train, and put the finished model at `output`. A training that was stopped goes on from its last checkpoint.

    Args:
        recipe: What and how; see `training.recipe`.
        dataset: A release folder.
        output: The model's folder. An earlier model there is replaced when this one is finished.
        student: A checkpoint or a model on the Hub, over the recipe's own.
        report: Called with the plan before the first step.

    Raises:
        UserError: nothing that can be trained (dataset, student, template), a supervision proof that fails, too little
            memory or disk, a loss that is no longer a number, or an `output` that holds something else than a model of
            this stage.
    """
    # Read once, when torch loads OpenMP: waiting threads then sleep instead of spinning. Beside other busy processes
    # spinning made a step 3 to 10 times slower (11 to 31 tokens/s against 65 to 141).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    recover(output)
    _check_output(output)
    with quiet(), scratch_folder("train") as work:
        drawn = _draw(recipe, dataset, student, work)
        with workplace_of(output, drawn.fingerprint) as workplace:
            return _train(_ready(drawn, work), workplace, output, report)


def is_trained(recipe: Recipe, dataset: Path, output: Path) -> bool:
    """Whether `output` holds what this recipe makes of these rows and this student.

    Raises:
        UserError: dataset or student cannot be read.
    """
    try:
        there = json.loads((output / RECORD).read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with quiet(), scratch_folder("train") as work:
        return bool(there == _draw(recipe, dataset, None, work).fingerprint)


def _train(ready: "_Ready", workplace: Workplace, output: Path, report: Callable[[str], None] | None) -> TrainingResult:
    recipe, trainer = ready.drawn.recipe, ready.trainer
    trainer.args.output_dir = str(workplace.folder)
    check_disk(workplace.folder, ready.plan.trained, ready.plan.parameters, recipe)
    if report is not None and is_main():
        report(ready.plan.lines())
        for line in workplace.torn:
            report(line)
        if workplace.step:
            report(f"going on from step {workplace.step}")
    losses, seconds = run_steps(trainer, ready.plan, workplace, recipe)
    result = TrainingResult(
        model=output,
        proof=ready.proof,
        losses=losses,
        trained_tokens=ready.proof.labelled * recipe.epochs,
        seconds=seconds,
        peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        plan=ready.plan,
        resumed_from=workplace.step,
    )
    state = whole_state(trainer)
    if is_main():
        with atomic_folder(output) as folder:
            save_model(trainer, ready.drawn.serving, recipe, ready.drawn.checkpoint, folder, state)
            _keep_logs(workplace.folder, folder)
            describe(folder, result, ready.drawn)
        shutil.rmtree(workplace.folder, ignore_errors=True)
    return result


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is trained on what: everything that decides what comes out."""

    recipe: Recipe
    dataset: Path
    checkpoint: Path
    weights: str
    fit: Fitting
    serving: "PreTrainedTokenizerBase"

    @property
    def fingerprint(self) -> str:
        """The same for the same outcome."""
        return fingerprint_of(self.recipe, self.fit.mixture.content, self.weights)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A training before its first step."""

    drawn: Drawn
    trainer: "StudentTrainer"
    proof: SupervisionProof
    plan: Plan


def _draw(recipe: Recipe, dataset: Path, student: str | Path | None, work: Path) -> Drawn:
    wanted = recipe.student if student is None else str(student)
    checkpoint = checkpoint_of(wanted)
    recipe = recipe.model_copy(update={"student": str(checkpoint) if wanted is None else wanted})
    mixture = blended(recipe.mixture, dataset, recipe.seed, work / "cache")
    serving = _tokenizer(checkpoint)
    fit = fitting(mixture, serving, recipe, positions_of(checkpoint))
    return Drawn(recipe, dataset, checkpoint, weights_hash(checkpoint), fit, serving)


def _ready(drawn: Drawn, work: Path) -> _Ready:
    recipe, rows = drawn.recipe, drawn.fit.mixture.rows
    # How many rows a packed sequence holds on average, if it is full.
    packed = max(1.0, recipe.max_length * len(rows) / sum(drawn.fit.lengths)) if recipe.packing else 1.0
    accumulation = recipe.accumulation(processes(), packed)
    trainer = build_trainer(recipe, rows, drawn.checkpoint, work / "trainer", accumulation)
    proof = prove(trainer, rows, drawn.serving, recipe.batch_size, recipe.loss_on)
    return _Ready(drawn, trainer, proof, plan_of(trainer, recipe, proof, processes(), accumulation, drawn.fit.left_out))


def _keep_logs(work: Path, folder: Path) -> None:
    """The logs for TensorBoard go with the model."""
    if (work / "runs").is_dir():
        shutil.copytree(work / "runs", folder / "tensorboard")


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
    from transformers import PreTrainedTokenizerBase

    tokenizer = load_tokenizer(checkpoint)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if not tokenizer.chat_template:
        raise UserError(f"Student '{checkpoint}' has no chat template: it is a base model. Choose an instruct model.")
    return tokenizer


def build_trainer(
    recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int = 1
) -> "StudentTrainer":
    """The SFTTrainer of a recipe, ready to train: model loaded, rows rendered and tokenised.

    Args:
        recipe: What and how.
        rows: The rows to train on, all of them.
        checkpoint: The student's folder.
        work: The trainer's folder: checkpoints and logs.
        accumulation: Batches a step on each process.
    """
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    from training.student_trainer import StudentTrainer

    on_gpu = torch.cuda.is_available()
    if not on_gpu and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cpu_threads())
    tokenizer = _tokenizer(checkpoint)
    tokenizer.chat_template = _training_template(recipe, tokenizer, checkpoint)
    arguments = _trainer_arguments(recipe, work, accumulation, on_gpu)
    # float32 weights under bfloat16 arithmetic: small steps would be rounded away in bfloat16 weights. Weights under
    # adapters take no steps.
    frozen = recipe.lora is not None and recipe.bf16 and on_gpu
    model = load_model(
        checkpoint,
        dtype=torch.bfloat16 if frozen else torch.float32,
        attn_implementation=recipe.attention,
        quantization_config=_quantization(recipe, on_gpu),
    )
    # Nothing but `messages`: a column named `prompt` would send TRL down its prompt-completion path.
    messages = Dataset.from_list([{"messages": [dict(turn) for turn in row.messages]} for row in rows])

    trainer = StudentTrainer(
        rows_at_once=recipe.batch_size * accumulation * processes(),
        grouped=not recipe.packing,
        model=model,
        args=arguments,
        train_dataset=messages,
        processing_class=tokenizer,
        peft_config=_adapters(recipe),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _trainer_arguments(recipe: Recipe, work: Path, accumulation: int, on_gpu: bool) -> "SFTConfig":
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig(
        output_dir=str(work),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.scheduler,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=accumulation,
        max_length=recipe.max_length,
        packing=recipe.packing,
        assistant_only_loss=recipe.loss_on == "completion",
        bf16=recipe.bf16 and bf16_pays(),
        gradient_checkpointing=recipe.gradient_checkpointing,
        seed=recipe.seed,
        ddp_backend="gloo" if processes() > 1 and not on_gpu else None,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=recipe.report_to,
        # Checkpoints are asked for by the clock (training/checkpoints.py), never by the step.
        save_strategy="steps" if recipe.checkpoint_minutes else "no",
        save_steps=10**9,
        save_total_limit=1,
        use_liger_kernel=recipe.liger,
        disable_tqdm=True,
    )


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


def _adapters(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=recipe.lora.r, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
