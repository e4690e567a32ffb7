"""Where a study's servers of guard, attacker and judge go: which on which of this machine's GPUs.

Reads a study's `servers`, the entries that its steps ask, and what nvidia-smi says; writes nothing. A server is
`saferthoughts teachers serve MODEL --port PORT --run` with its own CUDA_VISIBLE_DEVICES, at the port of its entry. One
that answers already is left as it is.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from pipelines.doctor import teacher_finding
from pipelines.errors import UserError, unknown
from pipelines.settings.teacher import Teacher, load_teachers
from saferthoughts.studies.spec import Server, words_of
from saferthoughts.studies.steps import Study

# Of a GPU's memory, what servers are given: vLLM's own default.
_SHARE = 0.9
_LOCAL = re.compile(r"https?://(?:127\.0\.0\.1|localhost):(\d+)(?:/.*)?")
_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)


class Pool(NamedTuple):
    """The GPUs of this machine that a study may use, and the memory of each in GB; None where it is not known."""

    names: tuple[str, ...]
    memory: float | None

    def words(self) -> str:
        """For the terminal."""
        return f"{len(self.names)} GPUs of {f'{self.memory:.0f} GB' if self.memory else 'unknown memory'}"


def pool_of(text: str | None) -> Pool:
    """The GPUs that `--gpus` names: `0,1,3`, or `4x80` for the first four, of 80 GB each; all that are seen if None.

    Raises:
        UserError: it is neither, or there are fewer.
    """
    seen = _seen()
    if text is None:
        return seen
    if sized := re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)", text.strip()):
        names = seen.names[: int(sized[1])] or tuple(map(str, range(int(sized[1]))))
        if len(names) < int(sized[1]) or not float(sized[2]):
            raise UserError(f"--gpus {text}: {len(seen.names)} GPUs are seen here. Name as many, such as 1x{sized[2]}.")
        return Pool(names, float(sized[2]))
    names = tuple(filter(None, map(str.strip, text.split(","))))
    if bad := [one for one in names if not re.fullmatch(r"[A-Za-z0-9/_-]+", one)]:
        raise UserError(f"--gpus {text}: '{bad[0]}' is no GPU. Name some as 0,1,3, or their number and memory as 4x80.")
    return Pool(names, seen.memory)


def _seen() -> Pool:
    """The GPUs of CUDA_VISIBLE_DEVICES, or those that nvidia-smi lists, with the memory of the smallest."""
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    memory: list[float] = []
    if shutil.which("nvidia-smi"):
        try:
            printed = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout
            memory = [float(line) / 1024 for line in printed.split("\n") if line.strip().isdecimal()]
        except (OSError, subprocess.TimeoutExpired):
            memory = []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = tuple(map(str, range(len(memory)))) if named is None else tuple(filter(None, named.split(",")))
    return Pool(names, min(memory, default=None))


def billions(name: str) -> float | None:
    """A model's parameters in billions as its name has them, all experts of a mixture; None where it has none."""
    found = _SIZE.search(name.rstrip("/").rpartition("/")[2])
    if found is None:
        return None
    return int(found[1] or 1) * float(found[2]) / (1000 if found[3] in "mM" else 1)


def port_at(entry: Teacher) -> int | None:
    """The port of this machine that an entry is asked at; None where it is asked elsewhere."""
    found = _LOCAL.fullmatch(entry.base_url or "")
    return int(found[1]) if found else None


def served_gb(model: str, bytes_each: float = 2.0) -> float | None:
    """GB that a server of a model takes: weights and a fifth more, and 8 GB for what it is asked; None if unknown."""
    size = billions(model)
    return None if size is None else 1.2 * bytes_each * size + 8


@dataclass(frozen=True, slots=True)
class Placed:
    """A server and where it is: `gpus` count from the first that its set is given; `share` of the memory of each."""

    name: str
    model: str
    port: int
    own: Server
    gpus: tuple[int, ...]
    share: float | None
    gb: float | None

    def command(self) -> list[str]:
        """Words after `saferthoughts`."""
        parallel = {"tensor-parallel-size": len(self.gpus)} if len(self.gpus) > 1 else {}
        shared = {"gpu-memory-utilization": round(self.share, 2)} if self.share else {}
        options = words_of({"set": {**parallel, **shared, **self.own.set}})
        return ["teachers", "serve", self.model, "--port", str(self.port), *options, "--run"]

    def line(self, gpus: Sequence[str]) -> str:
        """As one would type it."""
        visible = ",".join(gpus[number] for number in self.gpus)
        return f"CUDA_VISIBLE_DEVICES={visible} saferthoughts {shlex.join(self.command())}"


class Placement(NamedTuple):
    """The servers that a step needs, in the order in which they start; how many GPUs they take; what does not fit."""

    servers: tuple[Placed, ...] = ()
    gpus: int = 0
    problems: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Of its servers."""
        return frozenset(one.name for one in self.servers)


def placements(study: Study, asked: Mapping[str, Mapping[str, Teacher]], pool: Pool) -> dict[str, Placement]:
    """By step, the servers of the study's that it asks and that do not answer yet.

    Args:
        study: Its `servers` say which.
        asked: By step that is to do, the entries that it asks.
        pool: The GPUs. Without any, nothing is placed.

    Raises:
        UserError: an entry of `servers` is none, or is not asked on this machine.
    """
    known = load_teachers()
    for entries in asked.values():
        known |= entries
    for name in study.spec.servers:
        if name not in known:
            raise unknown("teacher among the study's servers", name, known)
        if port_at(known[name]) is None or known[name].serve:
            raise UserError(
                f"servers.{name}: a study starts a server where its entry has a base_url of this machine, such as "
                f"http://127.0.0.1:8002/v1; this one has {known[name].place}."
            )
    wanted = {step: [name for name in study.spec.servers if name in entries] for step, entries in asked.items()}
    silent = {name for names in wanted.values() for name in names if not teacher_finding(name, known[name]).there}
    found = {}
    for step, names in wanted.items():
        needs = {name: known[name] for name in names if name in silent}
        if needs and pool.names:
            found[step] = _fitting(study, needs, min(study.steps[step].gpus, len(pool.names)), pool)
    return found


def _fitting(study: Study, needs: Mapping[str, Teacher], own: int, pool: Pool) -> Placement:
    placed = _placed(study, needs, pool.memory)
    if placed.problems or placed.gpus + own <= len(pool.names):
        return placed
    why = (
        f"servers do not fit: {', '.join(needs)} take {placed.gpus} GPUs, and the steps that ask them {own}, of "
        f"{pool.words()}; give more with --gpus, take another entry for one of them, or start one elsewhere"
    )
    return placed._replace(problems=(why,))


@dataclass(slots=True)
class _Room:
    """GPUs and the servers on them; `gb` is what these take, infinite where no other may come to them."""

    gpus: int
    names: list[str]
    gb: float


def _placed(study: Study, needs: Mapping[str, Teacher], memory: float | None) -> Placement:
    """Servers on as few GPUs as hold them: each alone on one or more, small ones together on one."""
    own = {name: study.spec.servers[name] for name in needs}
    sizes = {name: served_gb(entry.model, own[name].bytes) for name, entry in needs.items()}
    problems, rooms = [], list[_Room]()
    for name in sorted(needs, key=lambda one: -(sizes[one] or 0)):
        gb = sizes[name]
        if (given := own[name].gpus) is not None:
            rooms.append(_Room(given, [name], inf))
        elif gb is None or memory is None:
            what = "how much memory the GPUs have (--gpus 4x80)" if gb else f"how large {needs[name].model} is"
            problems.append(f"server {name}: nobody says {what}; name its GPUs with --set servers.{name}.gpus=1")
        elif room := next((one for one in rooms if one.gb + gb <= memory * _SHARE), None):
            room.names.append(name)
            room.gb += gb
        else:
            # Tensors are parted by powers of two.
            number = next(2**power for power in range(40) if gb <= 2**power * memory * _SHARE)
            rooms.append(_Room(number, [name], gb if number == 1 else inf))
    placed, first = [], 0
    for room in rooms:
        at = tuple(range(first, first := first + room.gpus))
        for name in room.names:
            share = _SHARE * (sizes[name] or 0) / room.gb if len(room.names) > 1 else None
            placed.append(Placed(name, needs[name].model, port_at(needs[name]) or 0, own[name], at, share, sizes[name]))
    return Placement(tuple(placed), first, tuple(problems))


def server_lines(study: Study, found: Mapping[str, Placement], pool: Pool) -> Iterator[str]:
    """Where servers are placed, for the plan: each set of them once, with the steps that it is for."""
    sets = {one.names: one for one in found.values() if not one.problems}
    for names, placement in sets.items():
        steps = [study.steps[name] for name, one in found.items() if one.names == names]
        own = max(min(step.gpus, len(pool.names)) for step in steps)
        labels = steps[0].label if len(steps) == 1 else f"{len(steps)} steps from {steps[0].label} on"
        took = f"{placement.gpus} of {pool.words()}, and {own} of a step's own"
        yield f"Servers for {labels}, begun before and ended after: {took}"
        for one in placement.servers:
            size = "" if one.gb is None else f" ({one.gb:.0f} GB at {one.own.bytes:g} bytes a parameter)"
            yield f"  {one.name}{size}: {one.line(pool.names[-placement.gpus :])}"


def problems_of(found: Mapping[str, Placement]) -> list[str]:
    """What does not fit, each once."""
    return list(dict.fromkeys(line for one in found.values() for line in one.problems))
