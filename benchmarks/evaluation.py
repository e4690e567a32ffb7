"""What evaluation costs beside the models: suites and attacks against their critical paths, decoding, grading.

    endpoint  the quick suite by the command line, 500 answers, against a server that answers after 0.3 s
    decoding  a student on the CPU beside transformers' generate (benchmarks/decoding.py)
    attack    PAIR, 5 streams of 5 iterations, on 50 goals, against a server that answers after 0.3 s
    samples   500 questions answered at once, through our engine and on a bare task of Inspect's, in turn
    grading   the golds of MATH-500 against themselves: how many verify, seconds, and how long the event loop stood

Each runs in a process of its own, the server in another. MATH-500 is read from ../shared/data where it is, else the
bundled sample's golds are taken.

    python -m benchmarks.evaluation [--quick] [--section attack]

Prints tables, and last one line of JSON.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.attack_server import ATTACKER, JUDGE, TARGET
from benchmarks.latency_server import serving
from benchmarks.makespan import best_makespan

_ROOT = Path(__file__).resolve().parent.parent
_MATH = _ROOT.parent / "shared" / "data" / "math500.jsonl"
_DELAY_S = 0.3
# At each model. What is asked at once in an attack is up to three times as much.
_PAIR_IN_FLIGHT = 16
_IN_FLIGHT = 32
_GRADINGS = 500
_SECTIONS = ("endpoint", "decoding", "attack", "samples", "grading")
_FIGURES = (
    "endpoint_vs_critical_path",
    "decoding_vs_generate",
    "pair_wall_vs_critical_path",
    "samples_per_s_vs_inspect",
    "math_golds_verified",
    "grading_loop_stall_ms",
)
_STREAMS = _ITERATIONS = 5
# Of one iteration: the attacker writes, the target answers, the judge rates. Then the target is asked afresh.
_STEPS = 3
_TICK_S = 0.001


class Sizes(NamedTuple):
    """How much is measured."""

    goals: int
    samples: int
    rounds: int
    # How often each task of the quick suite asks its 80, 20, 30 and 12 questions.
    epochs: tuple[int, int, int, int]
    decoded: int


FULL = Sizes(50, 500, 3, (4, 3, 2, 5), 64)
QUICK = Sizes(6, 120, 1, (1, 1, 1, 1), 16)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Evaluation against its critical path, and beside bare Inspect.")
    parser.add_argument("--quick", action="store_true", help="few goals and samples, under 50 s")
    parser.add_argument("--section", choices=_SECTIONS, action="append", help="repeat for several; all if not given")
    parser.add_argument("--in-flight", type=int, default=_PAIR_IN_FLIGHT, help="most requests under way at each model")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(_CONTENDERS[options.one](json.loads(sys.stdin.read()))))
        return
    sizes = QUICK if options.quick else FULL
    chosen = options.section or _SECTIONS
    figures: dict[str, Any] = dict.fromkeys(_FIGURES)
    if "endpoint" in chosen:
        figures |= endpoint(sizes.epochs)
    if "decoding" in chosen:
        figures |= decoding(sizes.decoded, sizes.rounds)
    if "attack" in chosen:
        figures |= attack(sizes.goals, options.in_flight)
    if "samples" in chosen:
        figures |= samples_beside_inspect(sizes.samples, sizes.rounds)
    if "grading" in chosen:
        figures |= grading()
    table = Table(box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), json.dumps(value))
    Console().print(table)
    print(json.dumps({"quick": options.quick, **figures, "load": [round(load, 2) for load in os.getloadavg()]}))


def endpoint(epochs: Sequence[int], limit: int | None = None) -> dict[str, Any]:
    """The real command on the quick suite, from the first request's arrival to the last answer as the server saw them.

    Nothing in it waits for another answer: the path is as many turns of all places as the answers take.
    """
    words = ["eval", "bench", "--suite", "quick", "--teachers", "teachers.yaml", "--output", "eval"]
    words += ["--limit", str(limit)] if limit else []
    for task, times in zip(("refusal", "none", "xstest", "math500"), epochs, strict=True):
        words += ["--set", f"{task}.epochs={times}"]
    with serving("benchmarks.attack_server") as server, tempfile.TemporaryDirectory() as folder:
        server.reset(_DELAY_S)
        entry = {"bench": {"base_url": server.url, "model": TARGET, "in_flight": _IN_FLIGHT}}
        (Path(folder) / "teachers.yaml").write_text(json.dumps(entry), encoding="utf-8")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        _run("saferthoughts", words, "", Path(folder))
        wall = time.perf_counter() - started
        seen = server.stats()
        results = json.loads((Path(folder) / "eval" / "results.json").read_text(encoding="utf-8"))
    expected = len(results["answers"])
    if seen.requests != expected:
        raise RuntimeError(f"{seen.requests} requests came for {expected} answers")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    best = best_makespan([_DELAY_S] * expected, _IN_FLIGHT)
    return {
        "endpoint_vs_critical_path": round(seen.span_s / best, 3),
        "endpoint_answers": expected,
        "endpoint_in_flight": _IN_FLIGHT,
        "endpoint_critical_path_s": round(best, 2),
        "endpoint_span_s": round(seen.span_s, 2),
        "endpoint_command_s": round(wall, 2),
        "endpoint_command_cpu_s": round(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, 2),
    }


def decoding(questions: int, rounds: int) -> dict[str, Any]:
    """The bundled student's tokens a second beside transformers'."""
    words = ["--questions", str(questions), "--rows", "8", "--mean", "32", "--rounds", str(rounds)]
    found: dict[str, Any] = json.loads(_run("benchmarks.decoding", words, "", _ROOT).splitlines()[-1])
    return found


def attack(goals: int, in_flight: int) -> dict[str, Any]:
    """PAIR on so many goals, from the first request's arrival to the last answer as the server saw them."""
    calls = goals * (_STREAMS * _ITERATIONS * _STEPS + 1)
    # Of the target, which is asked most. Attacker and judge have as many places of their own.
    asked = goals * (_STREAMS * _ITERATIONS + 1)
    # No schedule is shorter than one goal's chain of requests, nor than the target's places allow.
    best = max((_ITERATIONS * _STEPS + 1) * _DELAY_S, best_makespan([_DELAY_S] * asked, in_flight))
    with serving("benchmarks.attack_server") as server, tempfile.TemporaryDirectory() as folder:
        server.reset(_DELAY_S)
        done = apart("attack", {"url": server.url, "folder": folder, "goals": goals, "in_flight": in_flight})
        seen = server.stats()
    if seen.requests != calls:
        raise RuntimeError(f"{seen.requests} requests came for {calls}")
    return {
        "pair_wall_vs_critical_path": round(seen.span_s / best, 3),
        "pair_goals": goals,
        "pair_requests": calls,
        "pair_in_flight": in_flight,
        "pair_peak_in_flight": seen.peak,
        "pair_critical_path_s": round(best, 2),
        "pair_wall_s": round(seen.span_s, 2),
        "pair_wall_whole_s": round(done["seconds"], 2),
    }


def samples_beside_inspect(samples: int, rounds: int) -> dict[str, Any]:
    """Questions answered at once: ours and Inspect's by turns, each from the call to the logs on disk."""
    rates: dict[str, list[float]] = {"ours": [], "inspect": []}
    with serving("benchmarks.attack_server") as server:
        for _ in range(rounds):
            for name, found in rates.items():
                server.reset(0.0)
                with tempfile.TemporaryDirectory() as folder:
                    done = apart(name, {"url": server.url, "folder": folder, "samples": samples})
                if server.stats().requests != samples:
                    raise RuntimeError(f"{name} asked {server.stats().requests} times for {samples}")
                found.append(samples / done["seconds"])
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["inspect"], strict=True)]
    return {
        "samples_per_s_vs_inspect": round(statistics.median(ratios), 3),
        "samples": samples,
        "samples_per_s": [round(rate, 1) for rate in rates["ours"]],
        "samples_per_s_inspect": [round(rate, 1) for rate in rates["inspect"]],
    }


def grading() -> dict[str, Any]:
    """Golds against themselves, a cold start of the workers in it."""
    golds = _golds()
    # As many comparisons as MATH-500 has, also where fewer of its golds are at hand.
    done = apart("grading", {"golds": (golds * _GRADINGS)[:_GRADINGS]})
    return {
        "math_golds_verified": round(done["verified"] / _GRADINGS, 4),
        "math_golds": len(golds),
        "gradings": _GRADINGS,
        "grading_s": round(done["seconds"], 2),
        "grading_loop_stall_ms": round(1000 * done["stall_s"], 1),
    }


def _golds() -> list[str]:
    if _MATH.exists():
        return [json.loads(line)["answer"] for line in _MATH.read_text(encoding="utf-8").splitlines()]
    from eval.suites import entry
    from eval.task_spec import TaskRequest

    task = entry("math500").build(TaskRequest({"temperature": 0, "max_tokens": 1, "epochs": 1}, bundled=True)).task
    return [str(sample.target) for sample in task.dataset]


def apart(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """One contender in a process of its own."""
    printed = _run("benchmarks.evaluation", ["--one", name], json.dumps(given), _ROOT)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def _run(module: str, words: list[str], text: str, folder: Path) -> str:
    """What a module of ours prints; raises with its last words where it ends badly."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        input=text, capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def _attack(given: dict[str, Any]) -> dict[str, Any]:
    from eval.models.inspect_models import ModelRoles, Role
    from eval.run.planning import Wanted
    from pipelines.settings.teacher import Teacher

    def role(model: str) -> Role:
        return Role(model, Teacher(model=model, base_url=given["url"], in_flight=given["in_flight"]))

    questions = _questions(given["folder"], given["goals"])
    roles = ModelRoles(attacker=role(ATTACKER), judge=role(JUDGE))
    return _evaluated(given, Wanted(tasks=("pair",), data={"pair": questions}, roles=roles), given["in_flight"])


def _ours(given: dict[str, Any]) -> dict[str, Any]:
    from eval.run.planning import Wanted

    questions = _questions(given["folder"], given["samples"])
    return _evaluated(given, Wanted(tasks=("none",), data={"none": questions}), _IN_FLIGHT)


def _evaluated(given: dict[str, Any], wanted: Any, in_flight: int) -> dict[str, Any]:
    """Seconds of `evaluate`, whose results must be whole."""
    from eval.models.inspect_models import Target
    from eval.run.stage import evaluate, require_complete
    from pipelines.settings.teacher import Teacher

    target = Target(TARGET, teacher=Teacher(model=TARGET, base_url=given["url"], in_flight=in_flight))
    output = Path(given["folder"]) / "eval"
    started = time.perf_counter()
    results = evaluate([target], wanted, output)
    seconds = time.perf_counter() - started
    require_complete(results, output)
    return {"seconds": seconds}


def _inspect(given: dict[str, Any]) -> dict[str, Any]:
    """A task of nothing but generate and a string match, run as Inspect runs it by default, without its display."""
    os.environ |= {"BENCH_API_KEY": "none", "BENCH_BASE_URL": given["url"], "XDG_DATA_HOME": given["folder"]}
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    lines = _questions(given["folder"], given["samples"]).read_text(encoding="utf-8").splitlines()
    samples = [Sample(json.loads(line)["query"], target="Sorry", id=at) for at, line in enumerate(lines)]
    task = Task(MemoryDataset(samples), solver=generate(), scorer=includes())
    started = time.perf_counter()
    (log,) = inspect_eval(
        task,
        model=f"openai-api/bench/{TARGET}",
        log_dir=str(Path(given["folder"]) / "logs"),
        display="none",
        max_connections=_IN_FLIGHT,
        max_samples=_IN_FLIGHT,
    )
    seconds = time.perf_counter() - started
    if log.status != "success" or log.results is None or log.results.completed_samples != given["samples"]:
        raise RuntimeError(f"Inspect's own run did not succeed: {log.error}")
    return {"seconds": seconds}


def _questions(folder: str, count: int) -> Path:
    path = Path(folder) / "questions.jsonl"
    lines = (json.dumps({"query": f"Describe thing number {number}.", "target": "Sure"}) for number in range(count))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _grading(given: dict[str, Any]) -> dict[str, Any]:
    from eval.scorers.grading import grade_many

    golds = given["golds"]

    async def graded() -> dict[str, Any]:
        stalls = [0.0]

        async def watch() -> None:
            """How much later than asked for the loop comes back."""
            while True:
                before = time.perf_counter()
                await asyncio.sleep(_TICK_S)
                stalls.append(time.perf_counter() - before - _TICK_S)

        watching = asyncio.create_task(watch())
        started = time.perf_counter()
        grades = await grade_many([(gold, gold) for gold in golds])
        seconds = time.perf_counter() - started
        watching.cancel()
        return {"verified": sum(one.right is True for one in grades), "seconds": seconds, "stall_s": max(stalls)}

    return asyncio.run(graded())


_CONTENDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "attack": _attack,
    "ours": _ours,
    "inspect": _inspect,
    "grading": _grading,
}

if __name__ == "__main__":
    main()
