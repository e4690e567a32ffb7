"""Running a Distilabel pipeline with its known traps removed.

Left alone it prints pages of logs, takes over the root logger, waits on Ctrl-C for whatever is in flight, waits for
ever for a step that failed or whose process died, leaves child processes behind after kill -9, copies its result into
the user's dataset cache, and resumes from a cache that hangs or returns old rows. Here it runs in a scratch folder that
is removed, and is watched (`watch.py`): a signal, a dead step or one that ended early ends it within seconds.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.errors import UserError, unknown
from pipelines.generate.link import listening
from pipelines.generate.watch import Hear, Watch
from pipelines.interrupts import end_with
from pipelines.runner.outcomes import Control, Ending
from pipelines.runner.stop import signals_end

ENGINES = ("local", "ray")
_LONGEST_NAP_S = 0.05


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the steps of a pipeline run: in processes of this machine, or on a Ray cluster.

    `ray_address` is "host:port" or "auto"; None stands for a cluster of our own, on this machine.

    Raises:
        UserError: no such engine, or an address without Ray.
    """

    name: str = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown("engine", self.name, ENGINES)
        if self.ray_address is not None and self.name != "ray":
            raise UserError(f"--ray-address {self.ray_address} goes with --engine ray; the engine is '{self.name}'.")


LOCAL = Engine()


# The process whose forked children end when it dies; None while no pipeline runs.
_leader: int | None = None


def _follow_leader() -> None:
    """Runs in every forked child."""
    leader = _leader
    if leader is None or os.getppid() != leader:
        return
    # A pool ends its idle workers by SIGTERM and waits for them: with a handler of the parent's, or one that a library
    # such as Ray left in it, they would not end, and nor would the wait. SIGINT is for the parent to see to.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(leader)


os.register_at_fork(after_in_child=_follow_leader)


@contextmanager
def _children_follow() -> Iterator[None]:
    """Processes forked inside the block end within a second when this one dies, even by kill -9."""
    global _leader
    _leader = os.getpid()
    try:
        yield
    finally:
        _leader = None


@contextmanager
def _thread_errors_raised() -> Iterator[None]:
    """What goes wrong in distilabel's threads is raised here; left alone it is printed and the run goes on."""
    caught: list[BaseException] = []
    kept = threading.excepthook

    def catch(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            caught.append(args.exc_value)

    threading.excepthook = catch
    try:
        yield
    finally:
        threading.excepthook = kept
    if caught:
        raise caught[0]


@contextmanager
def _root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = kept
        root.setLevel(level)


@contextmanager
def _dataset_cache_in(folder: Path) -> Iterator[None]:
    import datasets

    kept = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = kept
        datasets.enable_progress_bars()


class _Clock:
    """`time` as distilabel's pipeline sees it: left alone it looks only every 2.5 s whether its steps are loaded."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not long."""
        time.sleep(min(seconds, _LONGEST_NAP_S))


@contextmanager
def _impatient() -> Iterator[None]:
    from distilabel.pipeline import base

    kept, base.time = base.time, _Clock()
    try:
        yield
    finally:
        base.time = kept


@contextmanager
def muted_imports() -> Iterator[None]:
    """For importing distilabel, which makes pydantic and others warn about code that is not ours to mend, and which
    sets a traceback handler that prints local variables, keys among them."""
    kept = sys.excepthook
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            sys.excepthook = kept


@contextmanager
def _scratch(folder: Path, name: str) -> Iterator[Path]:
    """A scratch folder for one pipeline at a time; what a killed one left behind goes first."""
    lock = FileLock(folder / f".{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"Another process is at work on {folder} ({name}). Wait for it, or stop it first.") from error
    try:
        for left in folder.glob(f".{name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as path:
            yield Path(path)
    finally:
        lock.release()


def run_pipeline(
    folder: Path,
    name: str,
    add_steps: Callable[[str], None],
    keep: Callable[[Path, list[Path]], None],
    hear: Hear,
    pipeline_class: Any = None,
) -> Ending | None:
    """Run the pipeline whose steps `add_steps` makes and connects.

    Args:
        folder: The run folder; scratch space is made in it and removed.
        name: The pipeline's name, as its `pipeline.yaml` has it.
        add_steps: Called inside the pipeline's context, with the address that the asking step links to.
        keep: Called with the pipeline's yaml and the parquet files of its last step, unless it ended early.
        hear: Called with the asking step's progress.
        pipeline_class: The kind of Distilabel pipeline; its local one if None.

    Returns:
        Why it ended early; None where it did not.
    """
    # Read by distilabel whenever it sets up its loggers, in children too.
    os.environ["DISTILABEL_LOG_LEVEL"] = "CRITICAL"
    with muted_imports():
        from distilabel.pipeline import Pipeline

        from pipelines.generate.watched_pipeline import watched

    control = Control()
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch(folder, name))
        listener = stack.enter_context(listening())
        stack.enter_context(_dataset_cache_in(scratch / "datasets"))
        stack.enter_context(_root_logger_restored())
        with signals_end(control), Watch(listener, control, hear) as watch, _children_follow(), _impatient():
            with watched(pipeline_class or Pipeline, watch)(name=name, cache_dir=scratch / "distilabel") as pipeline:
                add_steps(str(listener.address))
            try:
                with _thread_errors_raised():
                    distiset = pipeline.run(use_cache=False)
            except Exception as error:
                watch.explain(error)
                # A pipeline that is given up ends in whatever way it can.
                if watch.close() is None:
                    raise
            ending = watch.close()
        if ending is None:
            parts = sorted((scratch / "distilabel").glob("**/steps_outputs/*/*.parquet"))
            keep(Path(distiset.pipeline_path), parts)
    return ending
