"""Which numbers a machine computes with at a useful rate, and on how many cores.

Reads what torch and the system say of the processor; writes nothing. Without AVX-512 or AMX, bfloat16 products are
made one by one: a step that takes 3 s elsewhere takes 5 minutes (0.3 GFLOP/s beside 26 in float32, measured on an AVX2
machine).
"""

import os
from functools import cache
from pathlib import Path
from typing import Any


@cache
def bf16_pays() -> bool:
    """Whether bfloat16 products are at least as quick as float32's here: on any GPU, and where oneDNN has them."""
    import torch

    return bool(torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def serving_dtype() -> Any:
    """The torch dtype that a checkpoint is loaded in to answer with."""
    import torch

    return torch.bfloat16 if bf16_pays() else torch.float32


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
