"""Whether a checkpoint can be resumed from, judged by the contents of its files.

A process that is killed, a disk that is full and a machine that loses power leave files that are missing, empty or cut.
Tensors are not read: headers, tables of contents and lengths show that a file is whole. Used by `trainer.checkpoints`.
"""

import json
from pathlib import Path
from typing import Any

# What deepspeed and FSDP write in folders of their own, instead of optimizer.pt and the weights.
_IN_PARTS = ("global_step*", "optimizer_*", "pytorch_model_fsdp_*")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_NEEDED = {"optimizer": "optimizer.pt", "scheduler": "scheduler.pt", "random state": "rng_state*.pth"}


def fault_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint as transformers saves it, "" where nothing is."""
    state = checkpoint / "trainer_state.json"
    if not state.is_file():
        return "trainer_state.json is missing: it was cut off"
    in_parts = any(any(checkpoint.glob(pattern)) for pattern in _IN_PARTS)
    if not in_parts:
        if not any(any(checkpoint.glob(pattern)) for pattern in _WEIGHTS):
            return "its weights are missing"
        for what, pattern in _NEEDED.items():
            if not any(checkpoint.glob(pattern)):
                return f"its {what} ({pattern}) is missing"
    for path in sorted(checkpoint.iterdir()):
        try:
            _read(path)
        # Whatever a broken file makes its reader raise: EOFError, RuntimeError, UnpicklingError, SafetensorError, ...
        except Exception as error:  # noqa: BLE001
            message = " ".join(str(error).split())[:100]
            fault = f"{type(error).__name__}: {message}" if path.stat().st_size else "it is empty"
            return f"{path.name} is broken: {fault}"
    step = checkpoint.name.partition("-")[2]
    found = json.loads(state.read_text(encoding="utf-8"))
    return "" if _fits(found, step) else "trainer_state.json is not that of its step"


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            file.keys()
    elif path.suffix in (".pt", ".pth"):
        import torch
        from transformers import trainer_pt_utils

        allowed: Any = trainer_pt_utils.safe_globals
        with allowed():
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    elif path.suffix == ".bin":
        import zipfile

        # Not loaded: training_args.bin holds classes. A zip's table of contents is at its end.
        zipfile.ZipFile(path).close()
    elif path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        if path.name.endswith(".index.json"):
            for name in set(found["weight_map"].values()):
                if not (path.parent / name).is_file():
                    raise FileNotFoundError(f"{name} is missing")


def _fits(state: Any, step: str) -> bool:
    return (
        isinstance(state, dict)
        and str(state.get("global_step")) == step
        and isinstance(state.get("log_history"), list)
        and isinstance(state.get("max_steps"), int)
    )
