"""A Distilabel pipeline that can be given up; imports distilabel, so import it muted (`engine.muted_imports`)."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from distilabel.pipeline.base import _STEP_LOAD_FAILED_CODE
from multiprocess.pool import TERMINATE

from pipelines.generate.watch import Watch
from pipelines.runner.outcomes import Ending

# Seconds for a thread of the pool's to notice that it is over.
_PATIENCE_S = 1.0


class GivenUp(Exception):
    """The pipeline was made to end early; the watch knows why."""


def give_up(pipeline: Any, error: Exception) -> None:
    """Make a pipeline end with an error: whatever waits for its steps, to load or to end, is told that they failed."""
    pipeline._exception = error
    with pipeline._steps_load_status_lock:
        for name in pipeline._steps_load_status:
            pipeline._steps_load_status[name] = _STEP_LOAD_FAILED_CODE
    # The process that holds the queue may be gone; whoever reads from it then notices by itself.
    with suppress(OSError, EOFError):
        pipeline._output_queue.put(None)


def kill(pool: Any) -> None:
    """Kill a pool's processes. Its own `terminate` waits for ever where one died with a lock, or was just replaced."""
    pool._terminate.cancel()
    # No more replacements; the thread that makes them is woken to see it.
    pool._worker_handler._state = TERMINATE
    pool._change_notifier.put(None)
    pool._worker_handler.join(_PATIENCE_S)
    for process in list(pool._pool):
        process.kill()


def watched(kind: Any, watch: Watch) -> Any:
    """A subclass of a Distilabel pipeline whose run the watch can end."""

    class WatchedPipeline(kind):  # type: ignore[misc]
        def _run_steps(self, steps: Iterable[str]) -> None:
            super()._run_steps(steps)
            pool, manager = getattr(self, "_pool", None), getattr(self, "_manager", None)
            processes = [*pool._pool, manager._process] if pool is not None and manager is not None else []
            watch.follow(processes, lambda ending: give_up(self, GivenUp(ending.text)))

        def _error_callback(self, e: BaseException) -> None:
            # Distilabel would wait for ever for a generator step that failed.
            cause = getattr(e, "subprocess_exception", e)
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
            watch.control.end(Ending("broken", f"A step of the pipeline failed: {reason}"))

        def _run_load_queue_loop(self) -> None:
            # The queue goes with its process. Who reads the output queue raises that; nobody waits for this thread.
            with suppress(OSError, EOFError):
                super()._run_load_queue_loop()

        def _set_steps_not_loaded_exception(self) -> None:
            if self._exception is None:
                super()._set_steps_not_loaded_exception()

        def _teardown(self) -> None:
            watch.let_go()
            if watch.control.ending is not None:
                # What it holds is in the ledger; writing all parts once more would take longer than a stop may.
                self._write_buffer = None
                pool = getattr(self, "_pool", None)
                if pool is not None:
                    kill(pool)
                    self._pool: Any = None
            super()._teardown()

        def _cache(self) -> None:
            if watch.control.ending is None:
                super()._cache()

        def _handle_keyboard_interrupt(self) -> Any:
            """Signals are handled already."""

    WatchedPipeline.__name__ = kind.__name__
    return WatchedPipeline
