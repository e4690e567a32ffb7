"""What our recipe's levers are worth: trained tokens a second beside a plain SFTTrainer script like the study's.

Trains a student for one epoch on the same rows each way (`benchmarks.training_ways`): plain, with one lever, with
several. The rows are as long as the study's (`benchmarks.training_rows`), on a CPU a quarter of that. Each way is a
process of its own, and all of them run in turn, round by round; ratios are of neighbours in one round, their median is
told. On a busy machine the ratio in CPU time is the one to look at: waiting for others does not change it. On a CPU the
student is the bundled one; on a GPU random weights in the shapes of Qwen2-1.5B and 7B.

    python -m benchmarks.training [--rounds 1] [--rows 88] [--quick] [--objective dpo]

Another objective than SFT is measured against TRL's own trainer of it, on the same rows as pairs or labels.

Prints a table, and last one line of JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.training_ways import OBJECTIVES, OTHER_WAYS, SCALES, WAYS
from pipelines.progress import meter

# What the recipe of that student does.
OURS = {"smollm2-135m": "grouping, no checkpointing", "qwen2-1.5b": "packing", "qwen2-7b": "packing"}

# For --quick: this many rows, and so much shorter still.
_QUICK_ROWS, _QUICK_SHORTER = 16, 4

# Rounds of figures, by way.
Found = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Trained tokens a second, lever by lever.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=88, help="every eleventh is benign and longer")
    parser.add_argument("--quick", action="store_true", help="few rows, plain and ours only, under 50 s")
    parser.add_argument("--objective", choices=OBJECTIVES, default="sft")
    options = parser.parse_args()
    rounds, rows = (1, _QUICK_ROWS) if options.quick else (options.rounds, options.rows)
    shorter = _QUICK_SHORTER if options.quick else 1
    gpu = _gpu()
    figures: dict[str, Any] = {"device": gpu or "cpu", "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("qwen2-1.5b", "qwen2-7b") if gpu else ("smollm2-135m",):
            ours = OURS[name] if options.objective == "sft" else "ours"
            every = WAYS if options.objective == "sft" else list(OTHER_WAYS)[:3]
            ways = ("plain", ours) if options.quick else tuple(every)
            found = rounds_of(Path(folder), name, ways, rounds, rows, shorter, options.objective)
            show(name, found, with_mfu=gpu is not None)
            # The last one is the JSON's: on a GPU the larger.
            figures |= {
                "student": name,
                f"tokens_per_s_vs_plain_{options.objective}": round(ratio(found, ours), 3),
                "label_share": round(found[ours][0]["label_share"], 4),
                "mfu": round(_middle(found, ours, "mfu"), 3) if gpu else None,
                "in_cpu_time": round(ratio(found, ours, "tokens_per_cpu_s"), 3),
                "levers": {way: round(ratio(found, way), 3) for way in found},
            }
    if gpu is None:
        print("There was no GPU: Qwen2-1.5B and 7B were not measured, and mfu is null.")
    print(json.dumps(figures))


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def rounds_of(
    folder: Path, name: str, ways: tuple[str, ...], rounds: int, rows: int, shorter: float, objective: str = "sft"
) -> Found:
    """Every way once a round."""
    from benchmarks.training_ways import made_student

    student = made_student(name, folder)
    found: Found = {way: [] for way in ways}
    with meter(name, total=rounds * len(ways), unit="ways") as shown:
        for way in [way for _ in range(rounds) for way in ways]:
            found[way].append(one_way(student, name, way, rows, shorter, objective))
            shown.advance()
            shown.note(f"{way}: {found[way][-1]['tokens_per_s']:.0f} trained tokens/s")
    return found


def one_way(
    student: Path, name: str, way: str, rows: int, shorter: float, objective: str, seconds: float | None = None
) -> dict[str, Any]:
    """The figures of one way, in a process of its own.

    Raises:
        RuntimeError: it failed, with what it printed.
        TimeoutExpired: it took longer than so many seconds.
    """
    module = [sys.executable, "-m", "benchmarks.training_ways", str(student), name, way, str(rows)]
    words = [*module, "--shorter", str(shorter), "--objective", objective]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ratio(found: Found, way: str, key: str = "tokens_per_s") -> float:
    """Trained tokens a second over the plain way's of the same round; the median of the rounds."""
    pairs = zip(found[way], found["plain"], strict=True)
    return float(statistics.median(one[key] / plain[key] for one, plain in pairs))


def _middle(found: Found, way: str, key: str) -> float:
    return float(statistics.median(one[key] for one in found[way]))


def show(name: str, found: Found, with_mfu: bool) -> None:
    """The figures as a table."""
    table = Table(title=f"{name}, {found['plain'][0]['rows']} rows, batches of {SCALES[name].batch_size}", box=None)
    columns = ["way", "trained tokens/s, by round", "ratio", "in CPU time", "padding", "tokens a step", "s a step"]
    for column in [*columns, "MFU"] if with_mfu else columns:
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in found:
        rates = ", ".join(f"{one['tokens_per_s']:.1f}" for one in found[way])
        cells = [way, rates, f"{ratio(found, way):.2f}", f"{ratio(found, way, 'tokens_per_cpu_s'):.2f}"]
        cells.append(f"{found[way][0]['padding']:.0%}")
        cells += [f"{found[way][0]['tokens_a_step']:.0f}", f"{_middle(found, way, 'seconds_a_step'):.2f}"]
        table.add_row(*cells, *([f"{_middle(found, way, 'mfu'):.0%}"] if with_mfu else []))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
