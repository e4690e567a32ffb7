"""The estimate of a training before it begins: steps, tokens, memory and time; refused where it cannot fit.

Reads the trainer and the machine; writes nothing. Memory is counted (weights, gradients, Adam's moments) and estimated
(activations, logits); time follows from a measured matrix product and a usual share of it. Both are estimates, and are
called that.
"""

import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.errors import UserError
from training.proof.supervision import SupervisionProof
from training.recipes.recipe import Recipe
from training.students.arithmetic import bf16_pays

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

# What lies in parts on the processes: nothing (DDP), all but the weights (ZeRO-2), all of it (ZeRO-3, FSDP2).
Sharding = Literal["none", "zero2", "whole"]

# Of what a matrix product reaches, a training step usually does.
USUAL_SHARE = {"cuda": 0.45, "cpu": 0.6}
# Dense bfloat16 products by the makers' data sheets, FLOP/s.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "4090": 165e12}


@dataclass(frozen=True, slots=True)
class Cost:
    """What an objective takes beside a pass over the rows.

    `sequences`: those of one row that are computed at once; `samples`: responses that the student writes to a row, of
    at most `written` tokens each; `reference`: whether a second model is held; `passes`: forward passes over every
    epoch's tokens that no weights are changed by.
    """

    sequences: int = 1
    samples: int = 1
    written: int = 0
    reference: bool = False
    passes: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done. Memory in GB and time in seconds are estimates, for each process."""

    parameters: int
    trained: int
    steps: int
    tokens: int
    effective_batch: int
    processes: int
    memory_gb: float
    available_gb: float
    seconds: float
    peak_flops: float
    left_out: int = 0
    reference_gb: float = 0.0
    written: bool = False

    def lines(self) -> str:
        """The plan in words."""
        share = "" if self.trained == self.parameters else f", {self.trained / 1e6:.1f} M of them trained"
        beside = f" ({self.reference_gb:.1f} GB of it for the reference model)" if self.reference_gb else ""
        tokens = f"at most {self.tokens}" if self.written else str(self.tokens)
        left_out = f"; {self.left_out} rows left out as too long" if self.left_out else ""
        return (
            f"{self.parameters / 1e6:.0f} M parameters{share}; {self.steps} steps of about {self.effective_batch} rows "
            f"on {self.processes} process{'es' if self.processes > 1 else ''}, {tokens} tokens in all{left_out}\n"
            f"estimated: {self.memory_gb:.1f} GB{beside} of {self.available_gb:.1f} GB for each process, "
            f"{_time(self.seconds)} of steps"
        )


def plan_of(
    trainer: "SFTTrainer",
    recipe: Recipe,
    proof: SupervisionProof,
    processes: int,
    accumulation: int,
    left_out: int = 0,
    cost: Cost = Cost(),
) -> Plan:
    """The plan of a trainer that is ready.

    Raises:
        UserError: memory would not do; with what would help.
    """
    model: Any = trainer.model
    parameters = sum(_size(p) for p in model.parameters())
    trained = sum(_size(p) for p in model.parameters() if p.requires_grad)
    dataset: Any = trainer.train_dataset
    batches = math.ceil(len(dataset) * cost.samples / (recipe.batch_size * processes))
    # A step of responses that are compared with each other is whole, or is not taken.
    an_epoch = batches // accumulation if cost.written else max(1, math.ceil(batches / accumulation))
    tokens = (proof.tokens + len(dataset) * cost.written) * cost.samples * recipe.epochs
    # The model itself may still wait on the CPU for FSDP or DeepSpeed to lay it out.
    device = str(trainer.args.device.type)
    peak = peak_flops(device, recipe.bf16 and bf16_pays())
    longest = recipe.max_length if recipe.packing else proof.longest + cost.written
    reference = _held(model) / (processes if sharding_of() == "whole" else 1) / 1e9 if cost.reference else 0.0
    plan = Plan(
        parameters=parameters,
        trained=trained,
        steps=recipe.epochs * an_epoch,
        tokens=tokens,
        effective_batch=round(recipe.batch_size * accumulation * processes * proof.rows / len(dataset)),
        processes=processes,
        memory_gb=memory_gb(model, recipe, longest, processes, sharding_of(), cost.sequences) + reference,
        available_gb=_available(device),
        seconds=(flops_of(parameters, trained, tokens) + 2.0 * parameters * tokens * cost.passes)
        / (processes * peak * USUAL_SHARE.get(device, 0.5)),
        peak_flops=peak,
        left_out=left_out,
        reference_gb=reference,
        written=bool(cost.written),
    )
    if plan.memory_gb > plan.available_gb:
        raise UserError(
            f"This training takes an estimated {plan.memory_gb:.0f} GB for each process, and there are "
            f"{plan.available_gb:.0f} GB. {_advice(recipe)}"
        )
    return plan


def _size(parameter: Any) -> int:
    """Numbers in a parameter: ZeRO-3 holds none of it here, four-bit weights lie two to a byte."""
    whole = int(getattr(parameter, "ds_numel", parameter.numel()))
    return 2 * whole if type(parameter).__name__ == "Params4bit" else whole


def flops_of(parameters: int, trained: int, tokens: int) -> float:
    """Floating-point operations of a training: two a parameter forward, two back to the inputs, two to the weights."""
    return float(tokens) * (4 * parameters + 2 * trained)


def peak_flops(device: str, bf16: bool) -> float:
    """FLOP/s of dense products: the data sheet's for a known GPU, measured here (0.3 s) for anything else."""
    import torch

    if device == "cuda":
        name = torch.cuda.get_device_name()
        known = next((peak for part, peak in PEAKS.items() if part in name), None)
        if known is not None:
            return known
    size = 8192 if device == "cuda" else 1024
    kind = torch.bfloat16 if bf16 else torch.float32
    left, right = (torch.randn(size, size, dtype=kind, device=device) for _ in range(2))
    best = math.inf
    # The first product prepares the kernel; on a busy machine one alone would tell a rate thousands of times too low.
    torch.mm(left, right)
    until, times = time.perf_counter() + 0.3, 0
    while time.perf_counter() < until or times < 10:
        times += 1
        begin = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def memory_gb(
    model: Any, recipe: Recipe, longest: int, processes: int, sharding: Sharding, sequences: int = 1
) -> float:
    """GB that one process takes: weights, gradients and moments counted, activations and logits by rule of thumb.

    Args:
        model: Loaded, or on the meta device.
        recipe: As resolved.
        longest: Tokens of the longest sequence.
        processes: How many train together.
        sharding: What accelerate splits over them.
        sequences: Sequences of one row that are computed at once.
    """
    config = model.config
    tokens = recipe.batch_size * sequences * longest
    layers, hidden = int(config.num_hidden_layers), int(config.hidden_size)
    wide = int(getattr(config, "intermediate_size", 4 * hidden))
    one_layer = tokens * (16 * hidden + 6 * wide)
    activations = layers * tokens * 2 * hidden + one_layer if recipe.gradient_checkpointing else layers * one_layer
    # Trainers other than SFT's never hold the logits of a batch.
    logits = 0 if recipe.liger or recipe.objective != "sft" else tokens * int(config.vocab_size) * 8
    # Libraries and the runtime's own.
    return (_state(model, processes, sharding) + activations + logits) / 1e9 + 2.0


def _state(model: Any, processes: int, sharding: Sharding) -> float:
    """Bytes of weights, gradients and Adam's two moments that one process holds."""
    parameters = list(model.parameters())
    held = _held(model)
    trained = sum(_size(p) for p in parameters if p.requires_grad)
    if sharding == "none":
        # Gradients and moments in four bytes each; DDP's buckets are a second copy of the gradients.
        return held + (12 if processes == 1 else 16) * trained
    if sharding == "zero2":
        # DeepSpeed computes on whole weights in bfloat16; their master copy and the rest lie in parts.
        return min(held, 2 * sum(map(_size, parameters))) + 16 * trained / processes
    return (held + 12 * trained) / processes


def _held(model: Any) -> int:
    """Bytes of all weights."""
    return sum(int(getattr(p, "ds_numel", p.numel())) * int(p.element_size()) for p in model.parameters())


def sharding_of() -> Sharding:
    """What accelerate splits over the processes, as its launcher says."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "whole"
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and stage in ("2", "3"):
        return "zero2" if stage == "2" else "whole"
    return "none"


def _available(device: str) -> float:
    import psutil
    import torch

    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
    # What this process holds already counts as available to it.
    own = psutil.Process().memory_info().rss
    return float(psutil.virtual_memory().available + own) / 1e9


def _advice(recipe: Recipe) -> str:
    ways = []
    if recipe.batch_size > 1:
        ways.append(
            f"batch_size={max(1, recipe.batch_size // 2)} (the effective batch stays, with effective_batch set)"
        )
    if not recipe.gradient_checkpointing:
        ways.append("gradient_checkpointing=true")
    if recipe.lora is None:
        ways.append("the recipe's lora or qlora form")
    elif recipe.quantize is None:
        ways.append("quantize=4bit")
    ways.append("more GPUs under accelerate with training/accelerate/zero3.yaml")
    return f"Try: {'; '.join(ways)}."


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
