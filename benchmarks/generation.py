"""How fast, how small and how soon `saferthoughts generate` is, beside what others would use in its place.

python -m benchmarks.generation [--quick] [--section NAME] [--with-others] [--requests N] [--json-only]

latency   heavy-tailed latencies; each contender's share of the best possible makespan (benchmarks/makespan.py)
zero      a server that answers at once; rows per second and CPU time a row beside the bare openai client
memory    peak memory of all processes over few and over many prompts
startup   seconds from start to exit for one prompt, against stock Distilabel
long      memory and CPU time a request by tenth of a long run (--requests), which should stay as they are

Reads nothing, writes to a temporary folder; contenders' environments (--with-others) are kept, see
benchmarks/environments.py. Tables go to stdout, progress to stderr; the last line of stdout is the result as JSON, null
for what was not measured. docs/benchmarks.md explains the choices.
"""

import itertools
import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.children import ChildFailed, Measured, measured
from benchmarks.contenders.with_saferthoughts import prepare
from benchmarks.environments import CURATOR, DATA_DESIGNER, ENVIRONMENTS, python_of, variables
from benchmarks.latency_server import SEED, LatencyServer, Stats, prompt_text, serving
from benchmarks.makespan import best_makespan, latency_of
from pipelines.errors import UserError, unknown
from pipelines.progress import console

OURS, BARE, STOCK = "saferthoughts", "bare openai client", "stock distilabel"
_SCRIPTS = {
    BARE: "with_openai.py",
    STOCK: "with_distilabel.py",
    CURATOR.name: "with_curator.py",
    DATA_DESIGNER.name: "with_data_designer.py",
}
_CONTENDERS = Path(__file__).parent / "contenders"
# No contender needs so long; one that hangs must not hold up the others for ever.
_LIMIT_S = 1800.0
KEYS = (
    *("share_of_best_makespan", "vs_bare_client", "vs_stock_distilabel", "zero_latency_vs_bare_client"),
    *("zero_latency_cpu_ms", "zero_latency_cpu_vs_bare_client", "rss_growth_mb", "startup_vs_stock", "startup_cpu_s"),
    *("long_rss_growth_mb", "long_cpu_late_vs_early"),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. Stock Distilabel is given the first `stock_requests` only: it would take many minutes."""

    requests: int
    mean_s: float
    in_flight: int
    stock_requests: int
    zero_requests: int
    zero_rounds: int
    few: int
    many: int
    startups: int
    long: int


FULL = Sizes(
    requests=8000, mean_s=2.0, in_flight=256, stock_requests=2000, zero_requests=5000, zero_rounds=3,
    few=1000, many=100_000, startups=3, long=100_000,
)  # fmt: skip
QUICK = Sizes(
    requests=1000, mean_s=0.2, in_flight=64, stock_requests=128, zero_requests=800, zero_rounds=1,
    few=200, many=1200, startups=1, long=2000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """One table, its remarks, and figures for the JSON line by their keys."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One contender's run: what the server saw, what the run took."""

    stats: Stats
    child: Measured


class Bench:
    """A running latency server, a scratch folder and the environments of other projects' engines."""

    def __init__(self, server: LatencyServer, sizes: Sizes, scratch: Path, environments: Path | None) -> None:
        self.sizes = sizes
        self._server, self._scratch = server, scratch
        self._environments = environments

    def run(
        self,
        name: str,
        count: int,
        in_flight: int,
        mean_s: float = 0.0,
        memory: bool = False,
        look: Callable[[int, psutil.Process], None] | None = None,
    ) -> Outcome:
        """Put the first `count` prompts to the server with one contender; `look` is called now and then with how many
        it has asked, and its process.

        Raises:
            ChildFailed: it failed, or did not ask every prompt exactly once.
        """
        prompts = [prompt_text(number) for number in range(count)]
        self._server.reset(mean_s)
        with tempfile.TemporaryDirectory(dir=self._scratch) as made:
            folder = Path(made)
            if name == OURS:
                run = prepare(prompts, self._server.url, in_flight, folder)
                command = [sys.executable, "-m", "benchmarks.contenders.with_saferthoughts", str(run.path)]
            else:
                file = folder / "prompts.txt"
                file.write_text("\n".join(prompts) + "\n", encoding="utf-8")
                script = str(_CONTENDERS / _SCRIPTS[name])
                command = [self._python(name), script, str(file), self._server.url, str(in_flight), str(folder)]
            env = variables(self._environments) if self._environments else None
            watch = None if look is None else lambda process: look(self._server.stats().requests, process)
            child = measured(command, folder, _LIMIT_S, env, memory, watch)
        stats = self._server.stats()
        if (stats.requests, stats.distinct) != (count, count):
            raise ChildFailed(f"it asked {stats.requests} times for {stats.distinct} of {count} prompts")
        return Outcome(stats, child)

    def _python(self, name: str) -> str:
        for environment in (CURATOR, DATA_DESIGNER):
            if name == environment.name:
                if self._environments is None:
                    raise ChildFailed("needs an environment of its own: --with-others makes it")
                return str(python_of(environment, self._environments))
        return sys.executable


def latency(bench: Bench) -> Section:
    """Shares of the best makespan under heavy-tailed latencies."""
    sizes = bench.sizes
    title = f"latency: {sizes.requests} requests, lognormal of mean {sizes.mean_s:g} s, {sizes.in_flight} in flight"
    section = Section(title, ("contender", "requests", "makespan s", "best s", "share of best", "start to exit s"))
    shares: dict[str, float] = {}
    for name in (OURS, BARE, STOCK, CURATOR.name, DATA_DESIGNER.name):
        count = sizes.stock_requests if name == STOCK else sizes.requests
        latencies = [latency_of(sizes.mean_s, SEED, number) for number in range(count)]
        best = best_makespan(latencies, sizes.in_flight)
        with _tried(name, section):
            outcome = bench.run(name, count, sizes.in_flight, sizes.mean_s)
            if outcome.stats.peak > sizes.in_flight:
                raise ChildFailed(f"it had {outcome.stats.peak} requests in flight, more than {sizes.in_flight}")
            shares[name] = best / outcome.stats.span_s
            figures = (f"{outcome.stats.span_s:.2f}", f"{best:.2f}", f"{shares[name]:.1%}")
            section.rows.append((name, str(count), *figures, f"{outcome.child.wall_s:.1f}"))
    section.notes.append("makespan: from first request to last answer as the server saw it; starting up is apart")
    section.notes.append(
        f"{STOCK} got the first {sizes.stock_requests} requests and is held to their own best makespan"
    )
    if OURS in shares:
        section.figures["share_of_best_makespan"] = shares[OURS]
        for other, key in ((BARE, "vs_bare_client"), (STOCK, "vs_stock_distilabel")):
            if other in shares:
                section.figures[key] = shares[OURS] / shares[other]
    return section


def zero(bench: Bench) -> Section:
    """Rows per second where the client is all that takes time."""
    sizes = bench.sizes
    title = f"zero: {sizes.zero_requests} requests answered at once, {sizes.in_flight} in flight"
    columns = ("contender", "round", "rows/s", "of the bare client's", "CPU ms a row", "start to exit s")
    section = Section(title, columns)
    ratios = []
    # CPU seconds of one request, which is the process's start; CPU ms of a row by contender.
    starts: dict[str, float] = {}
    costs: dict[str, list[float]] = {}
    for number in range(sizes.zero_rounds):
        # Neighbours in time, so that whatever else the machine does weighs on both.
        names = (BARE, OURS) if number else (BARE, OURS, CURATOR.name, DATA_DESIGNER.name)
        rates: dict[str, float] = {}
        for name in names:
            with _tried(name, section):
                if name not in starts:
                    starts[name] = bench.run(name, 1, 1).child.cpu_s
                outcome = bench.run(name, sizes.zero_requests, sizes.in_flight)
                cost = 1000 * (outcome.child.cpu_s - starts[name]) / (sizes.zero_requests - 1)
                costs.setdefault(name, []).append(cost)
                rates[name] = sizes.zero_requests / outcome.stats.span_s
                ratio = rates[name] / rates[BARE] if BARE in rates else None
                shown = ("" if ratio is None else f"{ratio:.2f}", f"{cost:.2f}", f"{outcome.child.wall_s:.1f}")
                section.rows.append((name, str(number + 1), f"{rates[name]:.0f}", *shown))
                if name == OURS and ratio is not None:
                    ratios.append(ratio)
    section.notes.append("rows/s: from first request to last answer as the server saw it")
    section.notes.append("CPU ms a row: user and system time of the process, without that of a run of one row")
    if ratios:
        section.figures["zero_latency_vs_bare_client"] = statistics.median(ratios)
        section.figures["zero_latency_cpu_ms"] = statistics.median(costs[OURS])
        section.figures["zero_latency_cpu_vs_bare_client"] = statistics.median(
            ours / bare for ours, bare in zip(costs[OURS], costs[BARE], strict=False)
        )
    return section


def memory(bench: Bench) -> Section:
    """How the memory of all processes grows with the number of prompts."""
    sizes = bench.sizes
    section = Section("memory: peak of all processes, a server that answers at once", ("prompts", "peak MB", "rows/s"))
    peaks = []
    for count in (sizes.few, sizes.many):
        with _tried(OURS, section):
            outcome = bench.run(OURS, count, sizes.in_flight, memory=True)
            peaks.append(outcome.child.peak_rss_mb)
            section.rows.append((str(count), f"{peaks[-1]:.0f}", f"{count / outcome.child.wall_s:.0f}"))
    section.notes.append("resident memory, added up over processes, so shared pages count in each; sampled every 0.2 s")
    section.notes.append("rows/s: from start to exit")
    if len(peaks) == 2:
        section.figures["rss_growth_mb"] = peaks[1] - peaks[0]
    return section


def startup(bench: Bench) -> Section:
    """Seconds from start to exit for one prompt."""
    columns = ("contender", "start to exit s, each", "CPU s, each")
    section = Section("startup: one prompt, a server that answers at once", columns)
    medians: dict[str, float] = {}
    children: dict[str, list[Measured]] = {OURS: [], STOCK: []}
    for _ in range(bench.sizes.startups):
        for name, taken in children.items():
            with _tried(name, section):
                taken.append(bench.run(name, 1, 1).child)
    for name, taken in children.items():
        if taken:
            medians[name] = statistics.median(child.wall_s for child in taken)
            walls, used = (", ".join(f"{one:.1f}" for one in of) for of in _each(taken))
            section.rows.append((name, walls, used))
    if children[OURS]:
        section.figures["startup_cpu_s"] = statistics.median(child.cpu_s for child in children[OURS])
    if len(medians) == 2:
        section.figures["startup_vs_stock"] = medians[OURS] / medians[STOCK]
    return section


def _each(children: list[Measured]) -> tuple[list[float], list[float]]:
    return [child.wall_s for child in children], [child.cpu_s for child in children]


def _cost(before: tuple[int, int, float], after: tuple[int, int, float]) -> float:
    """CPU ms a request between two looks."""
    return 1000 * (after[2] - before[2]) / max(after[0] - before[0], 1)


def long(bench: Bench) -> Section:
    """Memory and CPU time a request by tenth of a long run."""
    count = bench.sizes.long
    title = f"long: {count} requests answered at once, {bench.sizes.in_flight} in flight, by tenth"
    section = Section(title, ("requests", "resident MB", "CPU ms a request"))
    # How many were asked, resident bytes, CPU seconds.
    seen: list[tuple[int, int, float]] = []

    def look(asked: int, process: psutil.Process) -> None:
        times = process.cpu_times()
        if asked:
            seen.append((asked, process.memory_info().rss, times.user + times.system))

    with _tried(OURS, section):
        bench.run(OURS, count, bench.sizes.in_flight, look=look)
        marks = [next(one for one in seen if one[0] >= tenth * count / 10) for tenth in range(1, 10)] + seen[-1:]
        costs = [_cost(before, after) for before, after in itertools.pairwise([seen[0], *marks])]
        for (asked, rss, _), cost in zip(marks, costs, strict=True):
            section.rows.append((str(asked), f"{rss / 1e6:.0f}", f"{cost:.2f}"))
        # The first tenth fills buffers and opens connections; the last has the tables to write.
        section.figures["long_rss_growth_mb"] = (marks[-2][1] - marks[1][1]) / 1e6
        early, late = (_cost(marks[0], marks[4]), _cost(marks[4], marks[8]))
        section.figures["long_cpu_late_vs_early"] = late / early if early else math.nan
    section.notes.append("the last line has the sorting and writing of the tables in it")
    return section


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "latency": latency,
    "zero": zero,
    "memory": memory,
    "startup": startup,
    "long": long,
}


@contextmanager
def _tried(name: str, section: Section) -> Iterator[None]:
    """A contender that cannot be measured is said to be unmeasured, with the reason; the others go on."""
    started = time.monotonic()
    console.print(f"{section.title.partition(':')[0]}: {name} ...", highlight=False, markup=False)
    try:
        yield
    except ChildFailed as error:
        section.notes.append(f"{name} was not measured: {error}")
        console.print(f"  not measured: {error}", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(f"  {time.monotonic() - started:.1f} s", highlight=False, markup=False)


def _print(section: Section, out: Console) -> None:
    out.print(section.title, highlight=False, markup=False)
    table = Table()
    for column in section.columns:
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in section.rows:
        table.add_row(*row)
    out.print(table)
    for note in section.notes:
        # An error of another program can run over many lines; the end of it tells.
        out.print(f"  {note.splitlines()[0]} {note.splitlines()[-1] if chr(10) in note else ''}".rstrip(), markup=False)


def measure(names: list[str], sizes: Sizes, environments: Path | None, out: Console | None) -> dict[str, object]:
    """Run the named sections and print their tables to `out`.

    Returns:
        Every key of KEYS, null where its section was not run or its contenders failed, and where it was measured.

    Raises:
        UserError: there is no section of that name.
    """
    for name in names:
        if name not in SECTIONS:
            raise unknown("section", name, SECTIONS)
    load = os.getloadavg()[0]
    figures: dict[str, float] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch, serving() as server:
        bench = Bench(server, sizes, Path(scratch), environments)
        for name in names or SECTIONS:
            section = SECTIONS[name](bench)
            figures.update(section.figures)
            if out is not None:
                _print(section, out)
    return {
        "benchmark": "generation",
        **{key: round(figures[key], 3) if key in figures else None for key in KEYS},
        "quick": sizes.requests == QUICK.requests,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        # Of the machine in the minute before and the last minute; ours is part of the latter.
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "seconds": round(time.monotonic() - started, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: ends within 50 s on 2 cores.")] = False,
    section: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SECTIONS)}; repeatable.")] = None,
    with_others: Annotated[bool, typer.Option("--with-others", help="Also curator and data-designer.")] = False,
    requests: Annotated[int, typer.Option(help="Requests of the section `long`.")] = 0,
    environments: Annotated[Path, typer.Option(help="Where their environments are made and kept.")] = ENVIRONMENTS,
    json_only: Annotated[bool, typer.Option("--json-only", help="Only the line of JSON on stdout.")] = False,
) -> None:
    """Measure generation beside others, and close with one line of JSON.

    Example: python -m benchmarks.generation --quick --section latency
    """
    width = None if sys.stdout.isatty() else shutil.get_terminal_size((120, 40)).columns
    out = None if json_only else Console(width=width)
    try:
        sizes = QUICK if quick else FULL
        sizes = replace(sizes, long=requests) if requests else sizes
        result = measure(section or [], sizes, environments if with_others else None, out)
    except UserError as error:
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    print(json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
