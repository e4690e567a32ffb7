"""What our recipe's levers are worth: trained tokens a second beside a plain SFTTrainer script like the study's.

Makes a small release with the rehearsal teacher, so that rows have a release's lengths, and trains the bundled student
on it for some steps, each way in a process of its own: plain (padding, rows in random order, gradient checkpointing),
then one lever after the other, then all. On a GPU, random weights in the shapes of Qwen2-1.5B and 7B take its place.

    python -m benchmarks.training [--steps 6] [--quick]

Prints a table, and last one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_MIXTURE = {"default": 24, "improved": 24, "short": 24, "benign": 24}
_PLAIN: dict[str, Any] = {"packing": False, "gradient_checkpointing": True, "grouped": False}
_LEVERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rows of like length together": {"grouped": True},
    "packing": {"packing": True},
    "no gradient checkpointing": {"gradient_checkpointing": False},
    "ours": {"packing": True, "gradient_checkpointing": False},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Trained tokens a second, lever by lever.")
    parser.add_argument("--steps", type=int, default=6, help="measured steps each way, after one that is not")
    parser.add_argument("--quick", action="store_true", help="two steps, plain and ours only, under 50 s")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--release", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one_way(options.release, {**_PLAIN, **_LEVERS[options.one]}, options.steps)))
        return
    steps = 2 if options.quick else options.steps
    ways = ("plain", "ours") if options.quick else tuple(_LEVERS)
    with tempfile.TemporaryDirectory() as folder:
        release = made(Path(folder))
        found = {way: apart(release, way, steps) for way in ways}
    show(found)
    plain, ours = found["plain"], found["ours"]
    figures = {
        "tokens_per_s_vs_plain_sft": round(ours["tokens_per_s"] / plain["tokens_per_s"], 3),
        "label_share": round(ours["label_share"], 4),
        "steps": steps,
        "tokens_per_s": {way: round(one["tokens_per_s"], 1) for way, one in found.items()},
        "device": ours["device"],
    }
    if ours["device"] != "cpu":
        figures["mfu"] = round(ours["mfu"], 3)
    print(json.dumps(figures))


def made(folder: Path) -> Path:
    """A release of the rehearsal teacher's."""
    command = [sys.executable, "-m", "saferthoughts", "--runs", str(folder), "run", "bench", "--teacher", "rehearsal"]
    command += [
        "--harmful",
        "30",
        "--benign",
        "30",
        "--variant",
        "default",
        "--variant",
        "improved",
        "--variant",
        "short",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return folder / "bench" / "release"


def apart(release: Path, way: str, steps: int) -> dict[str, Any]:
    """One way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--one", way, "--release", str(release)]
    done = subprocess.run([*command, "--steps", str(steps)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_way(release: Path, settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Train for some steps; labelled tokens a second, the first step left out."""
    import time

    import torch
    from transformers import TrainerCallback

    from training.mixture import draw
    from training.order import SeededOrder
    from training.plan import flops_of, peak_flops
    from training.quiet import quiet
    from training.recipe import Recipe
    from training.sft import build_trainer
    from training.student import fetch_student

    grouped = settings.pop("grouped")
    # A packed sequence holds about as many tokens as four rows of the plain way.
    size = {"batch_size": 1, "max_length": 1024} if settings["packing"] else {"batch_size": 4, "max_length": 1024}
    recipe = Recipe.model_validate(
        {
            "mixture": _MIXTURE,
            "chat_template": "smollm2",
            "report_to": "none",
            "checkpoint_minutes": 0,
            **size,
            **settings,
        }
    )
    student = fetch_student()

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.ends.append(time.perf_counter())

    with quiet(), tempfile.TemporaryDirectory() as work:
        rows = draw(release, _MIXTURE, recipe.seed, Path(work)).rows
        trainer = build_trainer(recipe, rows, student, Path(work) / "trainer")
        held: Any = trainer.train_dataset
        if not grouped and not recipe.packing:
            lengths = [len(ids) for ids in held["input_ids"]]
            trainer._get_train_sampler = lambda *_: SeededOrder(lengths, 1, recipe.seed, grouped=False)  # type: ignore[method-assign]
        counted: list[tuple[int, int]] = []
        collate = trainer.data_collator

        def counting(features: Any) -> Any:
            batch = collate(features)
            counted.append((int((batch["labels"] != -100).sum()), int(batch["labels"].numel())))
            return batch

        trainer.data_collator = counting
        trainer.args.max_steps = steps + 1
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
        model: Any = trainer.model
        device = str(model.device.type)
        parameters = sum(p.numel() for p in model.parameters())
    seconds = clock.ends[-1] - clock.ends[0]
    measured = counted[1 : steps + 1]
    labelled, held_tokens = sum(one[0] for one in measured), sum(one[1] for one in measured)
    peak = peak_flops(device, recipe.bf16)
    del torch
    return {
        "tokens_per_s": labelled / seconds,
        "label_share": labelled / held_tokens,
        "seconds_a_step": seconds / steps,
        "mfu": flops_of(parameters, parameters, held_tokens) / seconds / peak,
        "device": device,
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    """The figures as a table."""
    table = Table(title="training", box=None)
    for name in ("way", "trained tokens/s", "ratio", "labelled share of a batch", "s a step"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for way, one in found.items():
        ratio = one["tokens_per_s"] / found["plain"]["tokens_per_s"]
        figures = (
            f"{one['tokens_per_s']:.1f}",
            f"{ratio:.2f}",
            f"{one['label_share']:.0%}",
            f"{one['seconds_a_step']:.2f}",
        )
        table.add_row(way, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
