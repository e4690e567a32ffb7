"""The training loop: progress, and a stop at a loss that is not finite or at a signal.

Runs a trainer that is ready, from a checkpoint if there is one; checkpoints go into the trainer's folder. Ctrl-C
(or SIGTERM, or SIGHUP) lets the step at work end and saves a checkpoint, a second one stops at once. Used by
`training.stage`.
"""

import math
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from pipelines.command_line import typed_command
from pipelines.errors import Incomplete, Interrupted, UserError
from pipelines.interrupts import SAME_WISH_S
from pipelines.progress import Meter, console, meter
from training.recipes.recipe import Recipe
from training.trainer.checkpoints import TimedCheckpoints, Workplace, checkpoints_in, is_main, processes
from training.trainer.estimate import Plan
from training.trainer.step_metrics import METRICS, StepMetrics

if TYPE_CHECKING:
    from training.trainer.student_trainer import StudentTrainer

_TENFOLD = 10
# A loss below is that of rows that are known by heart: a few new ones make it grow as much.
_LEARNED = 0.5


def run_steps(
    trainer: "StudentTrainer", plan: Plan, workplace: Workplace, recipe: Recipe
) -> tuple[tuple[float, ...], float]:
    """Run every step that is left; the losses of all steps, and the seconds of those that were run.

    Raises:
        Incomplete: the loss is no number, or grew tenfold; what was saved before is kept.
        Interrupted: Ctrl-C; what was done is in a checkpoint, if the recipe has any.
    """
    minutes = recipe.checkpoint_minutes
    with meter("train", total=None, unit="steps") as shown, _asked_to_stop() as asked:
        callback = _Shown(shown, asked, workplace, recipe)
        trainer.add_callback(callback)
        if minutes:
            trainer.add_callback(TimedCheckpoints(minutes))
        trainer.measure_against(plan)
        _train(trainer, workplace)
        seconds = time.monotonic() - callback.started
    state = trainer.state
    if state.global_step < state.max_steps:
        way = "Go on from there" if minutes else "Begin anew, since checkpoint_minutes is 0,"
        step = f"Stopped after step {state.global_step} of {state.max_steps}"
        raise Interrupted(f"{step}. {way} with: {typed_command()}")
    return tuple(float(entry["loss"]) for entry in state.log_history if "loss" in entry), seconds


def _train(trainer: "StudentTrainer", workplace: Workplace) -> None:
    # transformers reads a checkpoint's pickles (optimizer, schedule, random numbers) by `weights_only`: tensors and
    # numbers, and nothing that runs.
    try:
        trainer.train(resume_from_checkpoint=str(workplace.checkpoint) if workplace.checkpoint else None)
    except pickle.UnpicklingError as error:
        message, checkpoint = str(error).split(".")[0], workplace.checkpoint
        raise UserError(
            f"The checkpoint {checkpoint} holds a pickle of more than tensors, so it is not used ({message}). "
            f"Look at who could write there, delete {workplace.folder}, and run the same command: it begins anew."
        ) from error


class _Shown(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Shows loss and pace, and ends the training where it must."""

    def __init__(self, shown: Meter, asked: list[int], workplace: Workplace, recipe: Recipe) -> None:
        self._shown = shown
        self._asked = asked
        self._folder = workplace.folder
        self._recipe = recipe
        self.started = time.monotonic()
        self._first: float | None = None
        self._lowest = math.inf
        self._metrics = StepMetrics(workplace.folder / METRICS)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count, where an earlier run of this training ended."""
        self._shown.total = state.max_steps
        self._shown.advance(state.global_step)
        if is_main():
            self._metrics.begin(state.global_step)
        before = [float(entry["loss"]) for entry in state.log_history if "loss" in entry]
        self._first, self._lowest = (before[0], min(before)) if before else (None, math.inf)
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop after a signal."""
        if self._asked and state.global_step < state.max_steps:
            control.should_training_stop = True
            control.should_save = self._recipe.checkpoint_minutes > 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the step."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if is_main():
            self._metrics.add(state.global_step, state.max_steps, logs)
        self._lowest = min(self._lowest, loss)
        if self._first is None:
            self._first = loss
        # Of pairs one batch may be near 0 and the next not: they are measured by the first, which is at the reference.
        which, lowest = ("lowest before", self._lowest) if self._recipe.objective == "sft" else ("first", self._first)
        if self._recipe.stop_when_diverging and not loss <= _TENFOLD * max(lowest, _LEARNED):
            grown = f", ten times the {which} ({lowest:.2f})" if math.isfinite(loss) else ""
            saved = [path.name for path in checkpoints_in(self._folder)]
            kept = f"{self._folder / saved[-1]} is kept" if saved else "no checkpoint was saved yet"
            raise Incomplete(
                f"The loss of step {state.global_step} of {state.max_steps} is {loss:.3g}{grown}: training stopped, "
                f"and {kept}. Lower learning_rate ({self._recipe.learning_rate:g} now), or set bf16=false; "
                "stop_when_diverging=false goes on all the same."
            )
        reward = f", reward {logs['reward']:.2f}" if "reward" in logs else ""
        self._shown.note(f"loss {loss:.2f}{reward}, {logs['trained_tokens_per_s']:.0f} trained tokens/s")
        self._shown.advance()


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that SIGINT, SIGTERM and SIGHUP append to; a second signal gets the previous handler.

    Several processes are ended by their launcher, and signals belong to the main thread: nobody can ask elsewhere.
    """
    asked: list[int] = []
    if processes() > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    at = 0.0

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def take(number: int, frame: Any) -> None:
        nonlocal at
        if asked and time.monotonic() - at > SAME_WISH_S:
            restore()
            signal.raise_signal(number)
            return
        if not asked:
            at = time.monotonic()
            console.print("stopping after this step; once more stops at once", highlight=False, markup=False)
        asked.append(number)

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, take)
        yield asked
    finally:
        restore()
