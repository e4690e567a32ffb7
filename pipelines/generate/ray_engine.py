"""Generation on a Ray cluster: the same steps through Distilabel's RayPipeline, the ledger at home.

The asking step runs on the node of the machine that started the run, as the local engine's does: it reads the run
folder and is the only one that writes the ledger, so SQLite never meets a network file system, a run can go back and
forth between the engines, and an embedded teacher on 127.0.0.1 is within reach. What it yields carries each reply
along, so the steps that follow need neither the folder nor the ledger and run wherever a CPU is free. The queues
between the steps are at home as well: losing a node loses only what is asked for again for nothing, from the ledger.

Keys of teachers travel as an argument of the asking step's call; in a runtime environment they would end up in Ray's
logs and dashboard.
"""

import asyncio
import json
import os
import queue
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distilabel.pipeline.base import _STEP_NOT_LOADED_CODE, set_pipeline_running_env_variables
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapper
from distilabel.steps import StepInput
from distilabel.utils.logging import setup_logging

from pipelines.errors import UserError
from pipelines.generate.distilabel_steps import AskTeachers, SplitReplies
from pipelines.generate.ray_cluster import TIMEOUT, Nodes, on_node
from pipelines.generate.watched_pipeline import give_up
from pipelines.teachers.ledger import Ledger, Reply
from pipelines.teachers.waits import seconds_from

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput

# Seconds for the steps to start. Their nodes have just shown that they can; this is for what happens in between.
_LOAD_S = seconds_from(TIMEOUT, 120.0)


class CarryReplies(AskTeachers):
    """Asks at home, and sends each row on with its reply as JSON, "" where it has none."""

    @property
    def outputs(self) -> list[str]:
        return [*super().outputs, "reply"]

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        for rows, last in super().process(offset):
            ledger = Ledger(Path(self.run) / "ledger.sqlite")
            yield [{**row, "reply": _carried(ledger, row["key"])} for row in rows], last
            ledger.close()


def _carried(ledger: Ledger, key: str) -> str:
    reply = ledger.get(key) if key else None
    return "" if reply is None else json.dumps(asdict(reply))


class SplitCarried(SplitReplies):
    """Splits replies on any node, in a folder of its own that holds what `SplitReplies` reads of a run.

    `config` is the text of the run's run.yaml; `run` is set to that folder when the step is loaded.
    """

    anywhere: ClassVar[bool] = True
    run: str = ""
    config: str

    @property
    def inputs(self) -> list[str]:
        return [*super().inputs, "reply"]

    def load(self) -> None:
        """Make the folder."""
        super().load()
        self.run = tempfile.mkdtemp(prefix="saferthoughts-")
        (Path(self.run) / "run.yaml").write_text(self.config, encoding="utf-8")

    def unload(self) -> None:
        """Remove it."""
        shutil.rmtree(self.run, ignore_errors=True)
        super().unload()

    def process(self, inputs: StepInput) -> "StepOutput":
        for left in Path(self.run).glob("ledger.sqlite*"):
            left.unlink()
        ledger = Ledger(Path(self.run) / "ledger.sqlite")
        for row in inputs:
            if row["reply"]:
                ledger.put(row["key"], row["model"], Reply(**json.loads(row["reply"])))
        ledger.close()
        yield from super().process(inputs)


class _Exchange:
    """All queues of a pipeline in one worker of Ray's; `ray.util.queue` would start a process for each."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def put(self, name: str, item: Any) -> None:
        await self._queues[name].put(item)

    async def get(self, name: str) -> Any:
        return await self._queues[name].get()

    async def size(self, name: str) -> int:
        return self._queues[name].qsize()


class _ExchangeQueue:
    """One of them, as Distilabel uses it from any process."""

    def __init__(self, exchange: Any, name: str) -> None:
        self._exchange, self._name = exchange, name

    def put(self, item: Any) -> None:
        import ray

        ray.get(self._exchange.put.remote(self._name, item))

    def get(self) -> Any:
        import ray

        return ray.get(self._exchange.get.remote(self._name))

    def qsize(self) -> int:
        import ray

        return int(ray.get(self._exchange.size.remote(self._name)))

    def empty(self) -> bool:
        return self.qsize() == 0


class _StepActor:
    """A step in a worker of Ray's."""

    def run(self, wrapper: _StepWrapper, name: str, cache_id: str, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        setup_logging()
        set_pipeline_running_env_variables(name, cache_id)
        wrapper.run()


class PlacedRayPipeline(RayPipeline):  # type: ignore[misc]
    """Distilabel's RayPipeline with each step on a chosen node, in a cluster that is connected to already.

    Distilabel's own lets go of its actors: when one cannot start, or dies with its node, the run waits for ever. Here
    they are watched, and their end ends the run.
    """

    nodes: ClassVar[Nodes]
    keys: ClassVar[dict[str, str]]
    _exception: Exception | None

    def _init_ray(self) -> None:
        import ray

        # Actors end when nothing refers to them, so they are kept.
        kind: Any = ray.remote(_Exchange)  # its stub loses the actor's type
        self._exchange = kind.options(num_cpus=0, scheduling_strategy=on_node(self.nodes.home)).remote()
        self._under_way: dict[Any, str] = {}
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def QueueClass(self) -> Any:
        def made(actor_options: dict[str, Any]) -> Any:
            name = str(actor_options["name"])
            # Logs of steps are off; the listener that Distilabel starts for them needs nothing from afar.
            return queue.Queue() if name.endswith("-log-queue") else _ExchangeQueue(self._exchange, name)

        return made

    def _run_steps(self, steps: Iterable[str]) -> None:
        super()._run_steps(steps)
        if not self._watcher.is_alive():
            self._watcher.start()

    def _run_step(self, step: Any, input_queue: Any, replica: int) -> None:
        import ray

        wrapper = _StepWrapper(
            step, replica, input_queue, self._output_queue, self._load_queue, dry_run=self._dry_run, ray_pipeline=True
        )
        anywhere = getattr(step, "anywhere", False)
        environment = {"DISTILABEL_LOG_LEVEL": os.environ.get("DISTILABEL_LOG_LEVEL", "CRITICAL")}
        kind: Any = ray.remote(_StepActor)
        actor = kind.options(
            name=f"saferthoughts-{self.name}-{step.name}-{replica}",
            # At home a step needs no CPU of Ray's: heads of clusters often have none to give.
            num_cpus=1 if anywhere else 0,
            scheduling_strategy=on_node(self.nodes.worker if anywhere else self.nodes.home),
        )
        keys = {} if anywhere else self.keys
        run = actor.remote().run.remote(wrapper, self.name, self.signature, environment | keys)
        self._under_way[run] = step.name

    def _watch(self) -> None:
        """End the run when an actor fails, or when the steps do not load."""
        import ray

        deadline = time.monotonic() + _LOAD_S
        while self._under_way and self._exception is None:
            done, _ = ray.wait(list(self._under_way), timeout=0.5)
            for run in done:
                step = self._under_way.pop(run)
                try:
                    ray.get(run)
                except ray.exceptions.RayActorError as error:
                    give_up(self, UserError(_lost(step, error)))
                    return
                except ray.exceptions.RayTaskError as error:
                    give_up(self, RuntimeError(f"step '{step}' failed on Ray: {error}"))
                    return
            with self._steps_load_status_lock:
                missing = [name for name, status in self._steps_load_status.items() if status == _STEP_NOT_LOADED_CODE]
            if missing and time.monotonic() > deadline:
                told = f"Ray did not start step '{missing[0]}' within {_LOAD_S:g} s: its node is no longer free."
                give_up(self, UserError(f"{told} Run again when it is; nothing is lost."))
                return

    def _teardown(self) -> None:
        super()._teardown()
        # Given up from outside, it would go on looking after the cluster is left.
        if self._watcher.is_alive():
            self._watcher.join(10)

    def _set_steps_not_loaded_exception(self) -> None:
        # A step tells that it cannot load a moment before its actor ends, and the actor knows why.
        self._watcher.join(10)
        if self._exception is None:
            self._exception = RuntimeError("the steps could not be loaded on Ray")


def _lost(step: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"The Ray worker of step '{step}' is gone ({reason}). Every answer that came back is in the ledger; run the "
        "same command again to go on."
    )


def placed_on(nodes: Nodes, keys: dict[str, str]) -> type[PlacedRayPipeline]:
    """The pipeline class for a cluster that `connected` looked over.

    Args:
        nodes: Where steps go.
        keys: Environment variables for the steps at home: the teachers' keys.
    """
    return type("PlacedRayPipeline", (PlacedRayPipeline,), {"nodes": nodes, "keys": keys})


def add_steps(ask: dict[str, Any], config: str, batch: int) -> None:
    """Make and connect the steps of generation; to be called inside the pipeline's context.

    Args:
        ask: Fields of `AskTeachers`.
        config: The text of the run's run.yaml.
        batch: Rows in a batch.
    """
    asking = CarryReplies(name="ask", batch_size=batch, **ask)
    splitting = SplitCarried(name="split", config=config, input_batch_size=batch)
    asking >> splitting
