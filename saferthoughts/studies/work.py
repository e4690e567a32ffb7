"""The steps of a study at work: in the order of what needs what, side by side, on this machine or through submitit.

Reads steps; each is a shell script of our real commands. Writes into a step's folder

    step.sh       its commands
    log.txt       what they printed, of every attempt
    step.json     how it ended: state (done, failed), reason, seconds, when
    lock          held as long as a process of it lives, so that no two do the same

A step that fails stops what needs it and nothing else; a study that was stopped or killed goes on with the same call.
"""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.command_line import typed_command
from pipelines.errors import Interrupted, UserError
from pipelines.files import write_json, write_text
from pipelines.interrupts import unhurried
from pipelines.teachers.server_process import kept
from saferthoughts.studies.placement import Placement, Pool
from saferthoughts.studies.servers import Machine
from saferthoughts.studies.steps import Step, Study

if TYPE_CHECKING:
    from saferthoughts.studies.artifacts import Artifacts

LOG = "log.txt"
# A training that is asked to stop ends its step and saves a checkpoint.
_GRACE_S = 600
_INTERRUPTED = 130
_LOOK_EVERY_S = 0.2
# At once, if nobody says how many. Processes of submitit's on this machine would all take its first GPU.
_CLUSTER_JOBS = {"slurm": 64, "local": 1}
# Parameters that submitit has for every cluster; others are Slurm's own.
_GENERAL = ("name", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step is: its state, why it failed or where it is, how long its commands took, and when it ended."""

    state: Literal["done", "failed", "running", "stopped", "waiting", "elsewhere"]
    reason: str = ""
    seconds: float = 0.0
    at: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do: it is done here, or kept elsewhere and not needed here."""
        return self.state in ("done", "elsewhere")


def state_of(step: Step) -> Ended:
    """How a step is by its files alone. What a user deleted is not done."""
    with contextlib.suppress(OSError), (step.folder / "lock").open() as lock:
        if not _taken(lock.fileno()):
            return Ended("running")
    return _recorded(step)


def _recorded(step: Step) -> Ended:
    try:
        found = Ended(**json.loads((step.folder / "step.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Ended("stopped" if (step.folder / LOG).exists() else "waiting")
    return found if found.state != "done" or step.makes.exists() else Ended("waiting", "what it made is gone")


def begin(study: Study, agreed: bool) -> None:
    """Keep which steps the study has, and refuse to begin anew what was begun under other settings.

    Raises:
        UserError: a file or option has changed since, and nobody agreed.
    """
    record, place = study.folder / "steps.json", study.folder.parent / "steps"
    before: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(record.read_text(encoding="utf-8"))
    now = {step.label: name for name, step in study.steps.items()}
    changed = [one for one, name in now.items() if before.get(one, name) != name and (place / before[one]).exists()]
    if changed and not agreed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"Step '{changed[0]}'{more} would begin anew: an option or a file of the study is not that of "
            f"{before[changed[0]]}, which was begun. What that made is kept, and answers to the same requests are "
            f"taken over. Go on with: {typed_command(more='--yes')}"
        )
    write_json(record, before | now)


def start(step: Step, runs: Path, folder: str, gpus: Sequence[str] | None) -> "subprocess.Popen[bytes] | None":
    """Begin a step in a folder, seeing some GPUs (None for all); None where it is done or another process is at it.

    server_process.py ends it when this process is gone, and holds the lock until then.
    """
    step.folder.mkdir(parents=True, exist_ok=True)
    launcher = step.launch or shlex.quote(sys.executable)
    lines = [f"{launcher} -m saferthoughts --runs {shlex.quote(str(runs))} {shlex.join(one)}" for one in step.commands]
    with (step.folder / "lock").open("a") as lock, (step.folder / LOG).open("ab") as log:
        if not _taken(lock.fileno()) or _recorded(step).state == "done":
            return None
        write_text(step.folder / "step.sh", "\n".join(["set -ex", *lines, ""]))
        (step.folder / "step.json").unlink(missing_ok=True)
        return subprocess.Popen(
            [*kept(_GRACE_S), "sh", str(step.folder / "step.sh")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ if gpus is None else {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
            cwd=folder,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )


def perform(step: Step, runs: Path, folder: str) -> Ended:
    """A step from its beginning to its end: a cluster's job. One that is under way elsewhere is waited for."""
    began = time.monotonic()
    while (process := start(step, runs, folder, None)) is None:
        if (found := _recorded(step)).state == "done":
            return found
        time.sleep(_LOOK_EVERY_S)
    process.wait()
    return _record(step, process.returncode, began)


def _record(step: Step, code: int, began: float) -> Ended:
    if code == _INTERRUPTED:
        return Ended("stopped")
    reason = "" if step.makes.exists() else f"it ended well and left no {step.makes}"
    if code > 128:
        reason = f"ended by signal {code - 128}; see {step.folder / LOG}"
    elif code:
        lines = (step.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = lines[-1].strip().removeprefix("saferthoughts: ")[:400] if lines else f"ended with {code}"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    ended = Ended("failed" if reason else "done", reason, round(time.monotonic() - began, 1), at)
    write_json(step.folder / "step.json", asdict(ended))
    return ended


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run_steps(
    study: Study,
    jobs: int | None,
    pool: Pool,
    placed: Mapping[str, Placement],
    cluster: Any | None,
    report: Callable[[str], None],
    artifacts: "Artifacts | None" = None,
) -> dict[str, Ended]:
    """Do every step that is not done; how every step is.

    Args:
        jobs: How many at once; if not given one for each GPU, and at least one, or 64 on Slurm.
        pool: GPUs of this machine; a step that wants some has its own.
        placed: By step, the servers that are started for it.
        cluster: What `cluster_of` gives; None for this machine.
        report: Is called with a line for each step that ends.
        artifacts: Where else steps are found that are done, and kept.

    Raises:
        Interrupted: somebody stopped it; everything under way was asked to save and has ended.
    """
    work = _Work(study, Machine(pool.names, placed, study.folder / "servers", report), cluster, report, artifacts)
    most = jobs or (max(1, len(pool.names)) if cluster is None else _CLUSTER_JOBS[cluster.cluster])
    sorter = TopologicalSorter({step.name: step.needs for step in study.steps.values()})
    sorter.prepare()
    with unhurried():
        try:
            while sorter.is_active():
                work.ready += sorter.get_ready()
                if not work.ready and not work.running:
                    break
                begun = work.begin(most, len(pool.names))
                for name in (*begun, *work.look()):
                    sorter.done(name)
                left = [name for name in study.steps if name not in work.ended]
                # Where servers alone hold GPUs that each other's steps wait for, they go.
                work.machine.end_servers(left if begun or work.running or work.machine.held else ())
                time.sleep(_LOOK_EVERY_S if work.running or work.ready else 0)
        except KeyboardInterrupt:
            for handle, _, _ in work.running.values():
                handle.send_signal(signal.SIGINT) if cluster is None else handle.cancel()
            for handle, _, _ in work.running.values() if cluster is None else ():
                handle.wait()
            raise Interrupted(f"Stopped; what was done is kept. Go on with: {typed_command()}") from None
        finally:
            work.machine.end_servers()
    return {name: work.ended.get(name) or Ended("waiting", "what it needs failed") for name in study.steps}


class _Work:
    """The steps of a study that are ready, under way and ended."""

    def __init__(
        self,
        study: Study,
        machine: Machine,
        cluster: Any | None,
        report: Callable[[str], None],
        artifacts: "Artifacts | None",
    ) -> None:
        self.study, self.machine, self.cluster, self.report, self.artifacts = study, machine, cluster, report, artifacts
        self.ready: list[str] = []
        self.running: dict[str, tuple[Any, float, list[str]]] = {}
        self.ended: dict[str, Ended] = {}

    def begin(self, most: int, gpus: int) -> list[str]:
        """Begin what is ready and has room; the steps that are done already."""
        done = []
        for step in [self.study.steps[name] for name in self.ready]:
            waiting = len(self.running) + len(self.machine.held.keys() - {step.name})
            wanted = 0 if self.cluster is not None else min(step.gpus, gpus)
            if (found := self._found(step)).settled:
                self.ended[step.name] = found
                done.append(step.name)
            elif why := self.machine.broken.get(self.machine.servers_of(step.name)):
                self._end(step, Ended("failed", why))
            elif found.state == "running" or waiting >= most:  # noqa: SIM114 - what is asked second begins servers
                continue
            elif (own := self.machine.gpus_for(step.name, wanted, self.running, self.ready)) is None:
                continue
            elif handle := _handle(self.cluster, step, self.study.runs, str(Path.cwd()), own if gpus else None):
                self.running[step.name] = handle, time.monotonic(), own
            else:
                self.machine.give_back(own)
                continue
            self.ready.remove(step.name)
        return done

    def _found(self, step: Step) -> Ended:
        """How a step is, here or elsewhere."""
        found, there = state_of(step), self.artifacts
        if found.state == "done" and there:
            there.keep(step)
        if found.state in ("done", "running"):
            return found
        needed = (
            step.kind == "eval"
            or bool(step.tables)
            or not all(
                state_of(other).settled or (there and other.name in there.names())
                for other in self.study.steps.values()
                if step.name in other.needs
            )
        )
        if there:
            return there.take(step, needed) or found
        return Ended("waiting") if found.state == "elsewhere" and needed else found

    def look(self) -> list[str]:
        """Take note of what has ended; the steps that are done."""
        done = []
        for name, (handle, began, own) in list(self.running.items()):
            if one := _looked_at(self.study.steps[name], handle, began):
                del self.running[name]
                self.machine.give_back(own)
                self._end(self.study.steps[name], one)
                done += [name] if one.state == "done" else []
        return done

    def _end(self, step: Step, how: Ended) -> None:
        self.ended[step.name] = how
        if how.state == "done" and self.artifacts:
            self.artifacts.keep(step)
        words = f"failed: {how.reason}" if how.reason else f"{how.state} ({how.seconds:.0f} s)"
        self.report(f"{len(self.ended)}/{len(self.study.steps)} {step.label}: {words}")


def _handle(cluster: Any | None, step: Step, runs: Path, folder: str, gpus: Sequence[str] | None) -> Any:
    """A process, or a job of submitit's; None where another process was at it in that moment."""
    if cluster is None:
        return start(step, runs, folder, gpus)
    cluster.update_parameters(gpus_per_node=step.gpus)
    return cluster.submit(perform, step, runs, folder)


def _looked_at(step: Step, handle: Any, began: float) -> Ended | None:
    """How a process or job has ended; None for one that has not."""
    if isinstance(handle, subprocess.Popen):
        return None if handle.poll() is None else _record(step, handle.returncode, began)
    if not handle.done():
        return None
    try:
        ended: Ended = handle.result()
    except Exception as error:  # noqa: BLE001 - whatever ended the job, time limits and lost nodes among it
        why = f"job {handle.job_id} ended without a result ({type(error).__name__}); see {handle.paths.stderr}"
        return Ended("failed", why)
    return ended


def cluster_of(name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    """submitit's executor, for Slurm or for processes of this machine ("local").

    Raises:
        UserError: submitit is not installed, there is no such cluster here, or it takes no such parameter.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise UserError("--cluster needs submitit: pip install -c constraints.txt -e '.[slurm]'") from error
    if name not in _CLUSTER_JOBS:
        raise UserError(f"--cluster is slurm, or local to try it with processes of this machine, not '{name}'.")
    given = {key if key in _GENERAL or "_" in key else f"slurm_{key}": value for key, value in settings.items()}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=name)
        executor.update_parameters(**given)
    except (ValueError, NameError, TypeError, RuntimeError, AssertionError) as error:
        raise UserError(f"submitit does not take --cluster {name} with {dict(settings)}: {error}") from error
    return executor
