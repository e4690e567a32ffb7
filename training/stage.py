"""Fine-tune a student on a release, by the objective that the recipe names (training/objectives), proven before step 1.

Reads a release folder, a recipe, a student's checkpoint. Writes, all at once at the end,

    <output>/
      config.json  generation_config.json  model.safetensors    the whole model, adapters merged
      tokenizer.json  tokenizer_config.json  chat_template.jinja  the *serving* template, not the training one
      recipe.yaml  training.json  README.md                       as resolved; loss of every step, hashes; a short card
      local.json                                                  paths of this machine; neither signed nor pushed
      metrics.jsonl                                               loss, learning rate and pace of every step

Run with `saferthoughts train RECIPE --dataset FOLDER`, on several GPUs `accelerate launch --config_file
training/accelerate/zero2.yaml -m saferthoughts train ...`. One seed, machine, thread count and set of versions give the
same weights bit for bit (a test trains twice); another CPU or thread count rounds differently and drifts apart.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cards.card.model_card import RECORD
from pipelines.errors import UserError
from pipelines.files import atomic_folder, recover, scratch_folder
from training.mixtures.mixture_rows import blended
from training.objective import Objective, objective_of
from training.proof.supervision import SupervisionProof
from training.recipes.recipe import Recipe
from training.students.decoding import ReplyDecoder
from training.students.quiet import quiet
from training.students.student import checkpoint_of, weights_hash
from training.trainer.building import tokenizer_of
from training.trainer.checkpoints import Workplace, check_disk, fingerprint_of, is_main, processes, workplace_of
from training.trainer.estimate import Plan, flops_of, plan_of
from training.trainer.lengths import Fitting, fitting, positions_of
from training.trainer.model_folder import describe, save_model, whole_state
from training.trainer.step_metrics import METRICS
from training.trainer.steps import run_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    measures: dict[str, list[float]] = field(default_factory=dict)
    """Beside the loss, by step: of pairs the share that is ranked rightly and the margin, of GRPO the mean reward."""
    asked: dict[str, Any] = field(default_factory=dict)
    """Judges that were asked while it trained, with answers, tokens and cost."""

    @property
    def tokens_per_s(self) -> float:
        """Trained (labelled) tokens per second of the steps, those that were done now."""
        done = 1 - self.resumed_from / len(self.losses)
        return self.trained_tokens * done / self.seconds

    @property
    def utilisation(self) -> float | None:
        """The share of the machine's products that the steps made use of (MFU); see `trainer.estimate.peak_flops`.
        None where the student wrote the responses itself: what that took is not counted."""
        if self.proof.loss_on == "written":
            return None
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
        recipe: What and how; see `training.recipes.recipe`.
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
    ready.drawn.objective.begin(trainer, output.with_name(f".{output.name}.judged"))
    losses, seconds = run_steps(trainer, ready.plan, workplace, recipe)
    trained = ready.proof.labelled * recipe.epochs
    if ready.proof.loss_on == "written":
        trained = sum(int(entry.get("trained_tokens", 0)) for entry in trainer.state.log_history)
    result = TrainingResult(
        model=output,
        proof=ready.proof,
        losses=losses,
        trained_tokens=trained,
        seconds=seconds,
        peak_memory_gb=_peak_memory_gb(),
        plan=ready.plan,
        resumed_from=workplace.step,
        measures=_measures(trainer.state.log_history),
        asked=ready.drawn.objective.spent(trainer),
    )
    spread = result.measures.get("reward_std")
    if report is not None and is_main() and spread is not None and not any(spread):
        report("Every response had the same reward as the others to its prompt, at every step: nothing was learned.")
    state = whole_state(trainer)
    if is_main():
        with atomic_folder(output) as folder:
            # What scores a text has to be given it as in training; what writes one is prompted as it always was.
            kept = trainer.processing_class if ready.drawn.objective.scores else ready.drawn.serving
            save_model(trainer, kept, recipe, ready.drawn.checkpoint, folder, state)
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
    objective: Objective

    @property
    def fingerprint(self) -> str:
        """The same for the same outcome."""
        return fingerprint_of(self.recipe, self.fit.mixture.content, self.weights)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A training before its first step."""

    drawn: Drawn
    trainer: Any
    proof: SupervisionProof
    plan: Plan


def _draw(recipe: Recipe, dataset: Path, student: str | Path | None, work: Path) -> Drawn:
    wanted = recipe.student if student is None else str(student)
    checkpoint = checkpoint_of(wanted)
    recipe = recipe.model_copy(update={"student": str(checkpoint) if wanted is None else wanted})
    objective = objective_of(recipe)
    form = None if recipe.objective == "sft" else objective.form
    mixture = blended(recipe.mixture, dataset, recipe.seed, work / "cache", form)
    serving = tokenizer_of(checkpoint)
    fit = fitting(mixture, objective.lengths(mixture.rows, serving, recipe), recipe, positions_of(checkpoint))
    return Drawn(recipe, dataset, checkpoint, weights_hash(checkpoint), fit, serving, objective)


def _ready(drawn: Drawn, work: Path) -> _Ready:
    recipe, rows = drawn.recipe, drawn.fit.mixture.rows
    # How many rows a packed sequence holds on average, if it is full.
    packed = max(1.0, recipe.max_length * len(rows) / sum(drawn.fit.lengths)) if recipe.packing else 1.0
    accumulation = recipe.accumulation(processes(), packed)
    trainer = drawn.objective.build(recipe, rows, drawn.checkpoint, work / "trainer", accumulation)
    proof = drawn.objective.prove(trainer, rows, drawn.serving, recipe)
    cost = drawn.objective.cost(recipe)
    plan = plan_of(trainer, recipe, proof, processes(), accumulation, drawn.fit.left_out, cost)
    return _Ready(drawn, trainer, proof, plan)


def _measures(entries: list[dict[str, Any]]) -> dict[str, list[float]]:
    """What trainers log of each step, as far as every step has it."""
    steps = [entry for entry in entries if "loss" in entry]
    names = {"rewards/accuracies": "accuracy", "rewards/margins": "margin", "accuracy": "accuracy", "margin": "margin"}
    kept = {"reward": "reward", "reward_std": "reward_std", "unscored": "unscored", **names}
    return {kept[key]: [entry[key] for entry in steps] for key in kept if steps and all(key in e for e in steps)}


def _peak_memory_gb() -> float:
    """The most memory that this process has held, in GB."""
    import resource

    # Bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def _keep_logs(work: Path, folder: Path) -> None:
    """The figures of each step, and the logs for TensorBoard, go with the model."""
    if (work / METRICS).is_file():
        shutil.copyfile(work / METRICS, folder / METRICS)
    if any(found := sorted((work / "runs").rglob("*tfevents*"))):
        _keep_curves(found, folder / "tensorboard")


def _keep_curves(found: list[Path], folder: Path) -> None:
    """The curves of TensorBoard's logs, without the name of this machine, the paths and settings that these hold."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for path in found:
        for event in LegacyEventFileLoader(str(path)).Load():
            if all(value.HasField("simple_value") for value in event.summary.value):
                writer.add_event(event)
    writer.close()
    (written,) = folder.iterdir()
    written.rename(folder / "events.out.tfevents.saferthoughts")


def _check_output(output: Path) -> None:
    """A folder is replaced whole, so only one that this stage wrote may be there."""
    if output.exists() and not (output / RECORD).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"'{output}' is there and is not a model of this stage (no {RECORD}). Choose another --output.")
