"""SaferThoughts: from prompts to safe reasoning data to a trained, measured student.

    import saferthoughts as st

    run = st.Run.create("mine", teacher="deepseek", harmful=100, benign=40)
    run.generate(max_cost=5)
    run.judge("o3", "reasoningshield")
    run.repair()
    run.check()
    release = run.release(version="1.0.0")
    student = st.train(release, recipe="qwen3-8b-lora")
    st.evaluate(student, suite="safety", guard="llama-guard-3", judge="o3", attacker="vllm").table()

The command line and the service call the same methods. What cannot be done is raised as `UserError`, with the command
line's words. Everything is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.errors import Incomplete, Interrupted, UserError
    from pipelines.runs import VERSION as __version__
    from saferthoughts.evaluation import Evaluation, evaluate, rescore
    from saferthoughts.regeneration import regenerate
    from saferthoughts.release import Release, compare, describe, load_release, sign, verify
    from saferthoughts.run import Run
    from saferthoughts.status import RunStatus, status
    from saferthoughts.tables import Table
    from saferthoughts.training import Student, check_training, sweep, train

__all__ = [
    "Evaluation",
    "Incomplete",
    "Interrupted",
    "Release",
    "Run",
    "RunStatus",
    "Student",
    "Table",
    "UserError",
    "__version__",
    "check_training",
    "compare",
    "describe",
    "evaluate",
    "load_release",
    "regenerate",
    "rescore",
    "sign",
    "status",
    "sweep",
    "train",
    "verify",
]

_PLACES = {
    "pipelines.errors": ("Incomplete", "Interrupted", "UserError"),
    "saferthoughts.evaluation": ("Evaluation", "evaluate", "rescore"),
    "saferthoughts.regeneration": ("regenerate",),
    "saferthoughts.release": ("Release", "compare", "describe", "load_release", "sign", "verify"),
    "saferthoughts.run": ("Run",),
    "saferthoughts.status": ("RunStatus", "status"),
    "saferthoughts.tables": ("Table",),
    "saferthoughts.training": ("Student", "check_training", "sweep", "train"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = import_module("pipelines.runs").VERSION
    else:
        place = next((module for module, names in _PLACES.items() if name in names), None)
        if place is None:
            raise AttributeError(f"module 'saferthoughts' has no attribute '{name}'")
        value = getattr(import_module(place), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
