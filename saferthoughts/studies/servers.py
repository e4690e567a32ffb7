"""A study's servers at work: begun before the steps that ask them, ended after.

Writes studies/NAME/servers/ENTRY.log. `placement.py` says which GPUs they get, `work.py` which step is next.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from pipelines.errors import UserError
from pipelines.teachers.server_process import kept
from pipelines.teachers.vllm_server import healthy, last_lines
from saferthoughts.studies.placement import Placed, Placement

# From SIGTERM to SIGKILL: `teachers serve` itself waits for vLLM to let go of its GPUs.
_GRACE_S = 60


class Servers:
    """The servers of one placement, at work: one after another, since two that load on one GPU measure each other."""

    def __init__(self, placement: Placement, gpus: Sequence[str], folder: Path, report: Callable[[str], None]) -> None:
        self.placement, self.gpus = placement, tuple(gpus)
        self._folder, self._report = folder, report
        self._running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._healthy: set[str] = set()

    def look(self) -> bool:
        """Whether all answer; starts the next where those before it do.

        Raises:
            UserError: one has ended, or does not answer in time.
        """
        for one in self.placement.servers:
            if one.name not in self._running:
                self._running[one.name] = self._start(one), time.monotonic()
            process, began = self._running[one.name]
            seconds = time.monotonic() - began
            if process.poll() is not None:
                raise UserError(f"server {one.name} ended with exit code {process.returncode}; {self._log_of(one)}")
            if one.name not in self._healthy:
                if seconds > one.own.timeout_s:
                    longer = f"--set servers.{one.name}.timeout_s={2 * one.own.timeout_s:g}"
                    raise UserError(
                        f"server {one.name} does not answer after {seconds:.0f} s ({longer}); {self._log_of(one)}"
                    )
                if not healthy(one.port):
                    return False
                self._healthy.add(one.name)
                visible = ",".join(self.gpus[number] for number in one.gpus)
                self._report(f"server {one.name} answers on GPU {visible} after {seconds:.0f} s")
        return True

    def stop(self) -> None:
        """End all of them, and wait for it."""
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.wait()
        if self._running:
            self._report(f"ended: {', '.join(f'server {name}' for name in self._running)}")
        self._running.clear()

    def _start(self, one: Placed) -> "subprocess.Popen[bytes]":
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path(one).open("wb") as log:
            return subprocess.Popen(
                [*kept(_GRACE_S), sys.executable, "-m", "saferthoughts", *one.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(self.gpus[number] for number in one.gpus)},
                start_new_session=True,
            )

    def _path(self, one: Placed) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', one.name)}.log"

    def _log_of(self, one: Placed) -> str:
        return f"its log, {self._path(one)}, ends with: {last_lines(self._path(one))}"


class Machine:
    """This machine's GPUs: those of steps at work, those of servers, and the free ones.

    A set of servers is begun together with the GPUs of its first step, so that this one can always go on. It is ended
    when no step is left for it, or when another needs its GPUs and none that is ready asks it.

    Attributes:
        held: By step, the GPUs that wait for its servers with it.
        broken: By set of servers, why it did not start; it is not tried again.
    """

    def __init__(
        self, gpus: Sequence[str], placed: Mapping[str, Placement], folder: Path, report: Callable[[str], None]
    ) -> None:
        self._all, self._free = tuple(gpus), list(gpus)
        self._placed, self._folder, self._report = placed, folder, report
        self._up: dict[frozenset[str], Servers] = {}
        self.held: dict[str, list[str]] = {}
        self.broken: dict[frozenset[str], str] = {}

    def servers_of(self, step: str) -> frozenset[str]:
        """The names of those that are started for it."""
        return self._placed[step].names if step in self._placed else frozenset()

    def gpus_for(self, step: str, wanted: int, busy: Collection[str], ready: Collection[str]) -> list[str] | None:
        """GPUs for a step whose servers answer, its own from then on; None while it has to wait.

        Args:
            wanted: How many it takes.
            busy: The steps at work.
            ready: Those that could begin.
        """
        names = self.servers_of(step)
        if names and names not in self._up and not self._begun(step, wanted, {*busy, *ready}):
            return None
        try:
            if names and not self._up[names].look():
                return None
        except UserError as error:
            self.broken[names] = str(error)
            self._end(names)
            for other in [one for one in self.held if self.servers_of(one) == names]:
                self.give_back(self.held.pop(other))
            return None
        if step in self.held:
            return self.held.pop(step)
        return self._taken(self._free[:wanted]) if wanted <= len(self._free) else None

    def give_back(self, gpus: Iterable[str]) -> None:
        """Take back what a step had."""
        self._free = sorted([*self._free, *gpus], key=self._all.index)

    def end_servers(self, needed_by: Iterable[str] = ()) -> None:
        """End the sets that none of these steps asks; all of them if there is none."""
        kept = {self.servers_of(step) for step in needed_by}
        for names in [one for one in self._up if one not in kept]:
            self._end(names)

    def _begun(self, step: str, wanted: int, asking: Collection[str]) -> bool:
        """Whether a step's servers have GPUs, and it has its own beside them."""
        placement = self._placed[step]
        if len(self._free) < placement.gpus + wanted or any(placement.names & other for other in self._up):
            self.end_servers(one for one in asking if one != step)
        if len(self._free) < placement.gpus + wanted or any(placement.names & other for other in self._up):
            return False
        # Servers from the end, as the plan shows them.
        gpus = self._taken(self._free[len(self._free) - placement.gpus :])
        self._up[placement.names] = Servers(placement, gpus, self._folder, self._report)
        self.held[step] = self._taken(self._free[:wanted])
        return True

    def _end(self, names: frozenset[str]) -> None:
        servers = self._up.pop(names)
        servers.stop()
        self.give_back(servers.gpus)

    def _taken(self, gpus: list[str]) -> list[str]:
        self._free = [one for one in self._free if one not in gpus]
        return gpus
