"""What each lever of training is worth on one GPU, within minutes: SFT and DPO, with and without it, and the MFU.

Trains random weights in the shapes of Qwen2-1.5B and 7B (the latter under adapters) on rows as long as the study's,
each way in a process of its own (`benchmarks.training_ways`), the ways that matter most first; what the time does not
reach, and what fails, is named and has no figure. Fetches nothing. `benchmarks/gpu.sh` installs what it needs and runs
it.

    python -m benchmarks.gpu [--minutes 7] [--rows 88] [--toy]

Prints a line for each way, and last one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.training import one_way
from benchmarks.training_ways import GPU_WAYS, OTHER_WAYS, made_student

# Shape and objective, in the order of what is asked most.
PLAN = (("qwen2-1.5b", "sft"), ("qwen2-7b", "sft"), ("qwen2-1.5b", "dpo"), ("qwen2-7b", "dpo"))
# A packed, liger or flash way needs what a CPU lacks.
_TOY_WAYS = ("plain", "grouping", "packing", "ours")
_FIGURES = ("tokens_per_s", "mfu", "seconds_a_step", "padding")


def main() -> None:
    """Measure what there is time for, and print it."""
    parser = argparse.ArgumentParser(description="Training's levers on one GPU.")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--rows", type=int, default=88, help="every eleventh is benign and longer")
    parser.add_argument("--toy", action="store_true", help="a tiny student on a CPU: tries the way, measures nothing")
    options = parser.parse_args()
    import torch

    if not options.toy and not torch.cuda.is_available():
        sys.exit("There is no GPU here, so nothing was measured. --toy tries the way on a CPU.")
    device = "cpu, a toy: its figures mean nothing" if options.toy else torch.cuda.get_device_name()
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, objective in (("toy", "sft"), ("toy", "dpo")) if options.toy else PLAN:
            student = Path(folder) / name
            if not student.exists():
                made_student(name, Path(folder))
            for way in GPU_WAYS if objective == "sft" else OTHER_WAYS:
                if not options.toy or way in _TOY_WAYS:
                    key = f"{name}, {objective}, {way}"
                    found[key] = _one(student, name, way, options.rows, objective, end)
                    print(f"{key}: {_words(found[key])}", flush=True)
    print(json.dumps({"device": device, "rows": options.rows, "ways": found}))


def _one(student: Path, name: str, way: str, rows: int, objective: str, end: float) -> dict[str, Any]:
    """The figures of a way, or why there are none."""
    left = end - time.monotonic()
    if left <= 0:
        return {"unmeasured": "no time was left"}
    try:
        figures = one_way(student, name, way, rows, 1, objective, left)
    except subprocess.TimeoutExpired:
        return {"unmeasured": "no time was left"}
    except RuntimeError as error:
        return {"unmeasured": (str(error).strip().splitlines() or ["it failed"])[-1][:200]}
    return {key: round(float(figures[key]), 4) for key in _FIGURES}


def _words(one: dict[str, Any]) -> str:
    if "unmeasured" in one:
        return f"not measured: {one['unmeasured']}"
    return f"{one['tokens_per_s']:.0f} trained tokens/s, MFU {one['mfu']:.1%}, {one['seconds_a_step']:.2f} s a step"


if __name__ == "__main__":
    main()
