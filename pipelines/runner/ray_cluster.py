"""A Ray cluster for one run: connected to or started, looked over before anything is sent to it, and left again.

Reads nothing of the run; ships the `pipelines` package to the nodes. Left alone, Ray waits for ever for a node that
lacks a CPU or a module, and for two minutes for an address where nobody answers, and then ends the whole process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.teachers.waits import seconds_from

TIMEOUT = "SAFERTHOUGHTS_RAY_TIMEOUT"
# Seconds for an address to answer; and, from the beginning, for the nodes to show that they can make requests.
_CONNECT_S = seconds_from(TIMEOUT, 12.0)
_PATIENCE_S = seconds_from(TIMEOUT, 28.0)
# Seconds of those that a CPU may take to come free once this machine's node runs things at all.
_CPU_S = _PATIENCE_S
# Seconds for further nodes, once one is there that lends a CPU.
_OTHERS_S = 5.0
# CPUs of a cluster of our own, and bytes of its object store: what passes through it are batches of a few hundred rows.
_OWN_CPUS = 2
_OWN_STORE = 100 * 1024**2

_ROOT = Path(__file__).parents[2]
# What makes requests on the nodes.
_REQUESTS = "pipelines.runner.ray_client"
_HELP = "docs/cluster.md says how to set a cluster up"

# Run in a process of its own, because a failing connection ends the process that tries it.
_TRY = """
import json, sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
    print(json.dumps({"nodes": sum(node["Alive"] for node in ray.nodes())}))
    ray.shutdown()
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Node ids: `home` is this machine's, which has the run folder, and `workers` those that lend a CPU."""

    home: str
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Probe:
    node: str
    where: str
    cpus: int


@contextmanager
def connected(address: str | None, folder: Path, needs: Sequence[str] = (_REQUESTS,)) -> Iterator[Nodes]:
    """Be a driver of a Ray cluster while the block runs.

    Args:
        address: "host:port" of a cluster that this machine is a node of, "auto" to find it on this machine, or None to
            start one here that ends with the block.
        folder: The run folder, which must be there for the workers of this machine's node.
        needs: The modules that workers import.

    Raises:
        UserError: Ray is not installed, nobody answers at the address, or no node has the CPU and the modules to
            make requests; within 30 seconds.
    """
    deadline = time.monotonic() + _PATIENCE_S
    # Ray reports its use to its makers unless told not to, and takes this from the environment when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed. Install it: pip install -c constraints.txt -e '.[ray]'") from error
    if address is not None:
        _knock(address)
    shipped = {
        "py_modules": sorted({str(_ROOT / name.partition(".")[0]) for name in (*needs, _REQUESTS)}),
        "excludes": ["__pycache__"],
    }
    options: dict[str, Any] = {"runtime_env": shipped, "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": _OWN_CPUS, "include_dashboard": False, "object_store_memory": _OWN_STORE}
    # Ray's own handler takes nodes down, and would stay.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **options)
        yield _look_over(folder, needs, deadline)
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """Make sure that a Ray cluster answers at an address, without trusting it not to hang."""
    if "://" in address:
        raise UserError(
            f"--ray-address {address}: the machine with the run folder must be a node of the cluster. Join it with "
            f"`ray start --address=HOST:PORT` and give HOST:PORT, or auto; {_HELP}."
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"--ray-address takes HOST:PORT or auto; it got '{address}'.")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            raise UserError(f"Nobody answers at --ray-address {address} ({error}); {_HELP}.") from error
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY, address], capture_output=True, text=True, timeout=_CONNECT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"What answers at --ray-address {address} let nobody in within {_CONNECT_S:g} s: it is no Ray cluster of "
            f"this version, or it wants another token (RAY_AUTH_MODE, RAY_AUTH_TOKEN); {_HELP}."
        ) from error
    lines = tried.stdout.strip().splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": f"the connection ended with code {tried.returncode}"}
    if "error" in answer:
        reason = " ".join(answer["error"].split())[:300]
        raise UserError(f"--ray-address {address} cannot be used: {reason} ({_HELP}).")


def _look_over(folder: Path, needs: Sequence[str], deadline: float) -> Nodes:
    """Have the nodes import what is needed, and find those that can."""
    import ray

    # Inside this function, it travels whole: the node may lack the very modules that this file imports.
    def look(modules: list[str], wanted: str) -> str:
        import importlib
        import pathlib
        from importlib.metadata import version

        if wanted and not pathlib.Path(wanted).is_dir():
            return f"does not see {wanted}"
        try:
            for name in modules:
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            return f"lacks the module '{error.name}'"
        except ImportError as error:
            return f"cannot import what a request needs ({error})"
        return f"aiohttp {version('aiohttp')}"

    home = ray.get_runtime_context().get_node_id()
    known: Any = ray.nodes  # untyped
    alive = [node for node in known() if node["Alive"]]
    names = {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})" for node in alive}
    probes = [_Probe(home, str(folder.resolve()), 0)]
    probes += [_Probe(node["NodeID"], "", 1) for node in alive if node["Resources"].get("CPU", 0) >= 1]
    problems: dict[str, str] = {}
    refs = {}
    for probe in probes:
        task = ray.remote(look).options(
            num_cpus=probe.cpus, max_retries=0, scheduling_strategy=on_node(probe.node), name="saferthoughts-probe"
        )
        refs[task.remote(list(needs), probe.where)] = probe
    able = _settle(refs, problems, deadline)
    if probes[0] not in able:
        answer = problems.get(home) or f"started no worker within {_PATIENCE_S:g} s"
        raise UserError(f"Ray on this machine's node, {names[home]}, {answer}. Put that right and run again; {_HELP}.")
    problems |= {node["NodeID"]: "has no CPU for Ray" for node in alive if node["Resources"].get("CPU", 0) < 1}
    workers = [probe.node for probe in able if probe.cpus]
    for node in names.keys() - set(workers) - problems.keys():
        problems[node] = f"gave no CPU within {_CPU_S:g} s"
    left_out = "; ".join(f"{names[node]} {problem}" for node, problem in sorted(problems.items()))
    if not workers:
        raise UserError(
            f"No node of the Ray cluster can make requests: {left_out}. Put that right and run again; {_HELP}."
        )
    if problems.keys() - {home}:
        console.print(f"ray: nodes left out: {left_out}", highlight=False, markup=False, soft_wrap=True)
    return Nodes(home, tuple(workers))


def _settle(refs: dict[Any, _Probe], problems: dict[str, str], deadline: float) -> list[_Probe]:
    """The probes that came back well, soon after they are enough; what the others answered goes to `problems`."""
    import ray

    able: list[_Probe] = []
    versions = {}
    home = next(iter(refs.values()))
    waiting = list(refs)
    while waiting and (left := deadline - time.monotonic()) > 0:
        done, waiting = ray.wait(waiting, timeout=left)
        for ref in done:
            probe = refs[ref]
            try:
                answer = ray.get(ref)
            except ray.exceptions.RayError as error:
                answer = f"cannot run a task ({' '.join(str(error).split())[:300]})"
            if answer.startswith("aiohttp "):
                able.append(probe)
                versions[probe] = answer
                if probe is home:
                    deadline = min(deadline, time.monotonic() + _CPU_S)
            else:
                problems[probe.node] = answer
        if home in able and any(probe.cpus for probe in able):
            deadline = min(deadline, time.monotonic() + _OTHERS_S)
    for ref in waiting:
        ray.cancel(ref, force=True)
    for probe in list(able):
        if home in able and versions[probe] != versions[home]:
            able.remove(probe)
            problems[probe.node] = f"has {versions[probe]}, this machine {versions[home]}"
    return able


def on_node(node: str) -> Any:
    """Ray's scheduling strategy for one node and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
