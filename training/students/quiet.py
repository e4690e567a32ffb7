"""Third-party noise off the terminal while a block runs: progress bars, logs, and the warnings named here.

Writes nothing. The stage's own progress is `pipelines.progress.meter`; TRL, transformers and datasets each bring bars
and log lines of their own that would tear it apart. Everything is put back as it was when the block ends.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Loggers that report at WARNING what is no news to the user of a recipe.
_LOGGERS = ("accelerate", "datasets", "huggingface_hub", "peft", "torch", "transformers", "trl")
# Logs at ERROR what it raises as well.
_RAISES_TOO = "datasets"

# Warnings about how these libraries call each other, which no user of a recipe can act on.
_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # TRL's own default for it raises this in transformers 5.23, and earlier ones know no other name.
    ("`gradient_checkpointing` is deprecated", FutureWarning),
    # peft 0.21 asks models by the old name.
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),
)


@contextmanager
def quiet() -> Iterator[None]:
    """Mute bars, logs below ERROR of the training stack, and its known warnings; any other warning still shows."""
    import datasets
    from transformers.utils import logging as untyped

    transformers_logging: Any = untyped

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    datasets_bars = datasets.are_progress_bars_disabled()
    transformers_bars = transformers_logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL if logger.name == _RAISES_TOO else logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message, category in _WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if transformers_bars:
            transformers_logging.enable_progress_bar()
        if not datasets_bars:
            datasets.enable_progress_bars()
