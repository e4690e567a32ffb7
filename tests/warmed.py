"""Real processes that begin with the heavy libraries loaded: forked from one that loaded them once for all tests.

For tests that kill, interrupt or set limits to a process and do not care how it came up. Loading torch and what stands
on it takes seconds of computing time, and a fork nothing. Tests of how a command starts run it by the interpreter.
"""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What a training and an evaluation load within functions.
LOADED = [
    "saferthoughts.cli.app",
    "saferthoughts.cli.main",
    "trl.trainer.sft_trainer",
    "peft",
    "transformers.models.llama.modeling_llama",
    "training.student_trainer",
    "training.sft",
    "inspect_ai",
    "openai",
    "eval.run.stage",
    "eval.run.rescore",
    "saferthoughts.cli.evaluation",
    "saferthoughts.cli.training",
    "tests.warmed",
]


class Warmed:
    """A process under way; what it prints goes to two files.

    Args:
        arguments: The command line's words, or what `call` is given.
        cwd: Its working folder, where `printed.txt` and `errors.txt` are written.
        call: A function of a module, instead of the command line.
        env: What its environment has over this one's.
        largest: Bytes that a file it writes may have.
    """

    def __init__(
        self,
        *arguments: Any,
        cwd: Path,
        call: Callable[..., Any] | None = None,
        env: Mapping[str, str] | None = None,
        largest: int = resource.RLIM_INFINITY,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
            forkserver.ensure_running()
        self.cwd = cwd
        given = (call or command, arguments, cwd, {**os.environ, **(env or {})}, largest)
        self.process = context.Process(target=_begin, args=given)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def printed(self) -> str:
        """What it printed so far."""
        return _text(self.cwd / "printed.txt")

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return _text(self.cwd / "errors.txt")

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.process.exitcode is not None

    def wait(self, seconds: float = 300) -> int:
        """Its exit code, below zero where a signal ended it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still at work after {seconds} s: {self.errors}"
        return self.process.exitcode

    def end(self, number: int) -> int:
        """Send it a signal, and give its exit code."""
        os.kill(self.pid, number)
        return self.wait()


def command(*words: str) -> None:
    """The command line."""
    from saferthoughts.cli.main import main

    sys.argv = ["saferthoughts", *words]
    main()


def training(settings: Mapping[str, Any], release: Path, output: Path, student: Path) -> None:
    """One training, which prints what it is told."""
    import torch

    from training.recipe import Recipe
    from training.sft import train

    torch.set_num_threads(1)
    train(Recipe.model_validate(settings), release, output, student, print)


def _begin(
    call: Callable[..., Any], arguments: tuple[Any, ...], cwd: Path, env: Mapping[str, str], largest: int
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, name in ((1, "printed.txt"), (2, "errors.txt")):
        file = os.open(cwd / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # What Python does as it comes up.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    call(*arguments)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
