"""What the service costs: a run's state, the row browser and search, a list of many runs; its memory.

    python -m benchmarks.service [--rows 100000] [--words 260] [--runs 2000] [--quick]

Makes a run of synthetic judged rows with a ledger of as many answers, and many small runs; serves them by the real
command; asks with a bounded client, four requests under way at most, beside a bare request for /health in the
same minutes. Prints a table with the time of the requests and, asked one at a time, the service's computing time, and
last one line of JSON. The first look at rows lays them out, and their words are indexed after that: told apart.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines.records import LABELS, Judgement, Prompt, Response, Verdict, arrow_schema
from pipelines.runs import RunFolder, write_json
from pipelines.settings.config import Roles, RunConfig, save_config
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import load_teachers
from pipelines.teachers.ledger import Ledger
from service.http.tokens import Tokens
from service.store import Store

VARIANTS = ("direct", "realsafe", "improved", "short", "template", "nocot")
_VOCABULARY = 30_000
_POOL = 2000
_PIECE = 50_000
_IN_FLIGHT = 4
_LISTENERS = 200
_TARGET_P95_MS, _TARGET_RSS_MB = 200.0, 600.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Latency and memory of the service.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=260, help="of each row's reasoning")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=400, help="of each kind")
    parser.add_argument("--quick", action="store_true", help="10,000 rows, 200 runs and fewer requests, under 50 s")
    options = parser.parse_args()
    rows, runs_made, requests = (10_000, 200, 30) if options.quick else (options.rows, options.runs, options.requests)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        prompts = make(runs, rows, 100 if options.quick else options.words)
        copies(runs, runs_made)
        secret = Tokens(Store(runs)).add("bench", "read")
        with serving(runs) as server:
            figures = asyncio.run(measured(server, secret, prompts, rows, requests, runs_made))
    table = Table(title=f"{rows:,} rows, {runs_made:,} runs, {_IN_FLIGHT} requests under way", box=None)
    for column in ("request", "p50 ms", "p95 ms", "a second", "CPU p50 ms", "CPU p95 ms"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for name, found in figures["requests"].items():
        cpu = (f"{found[key]:.1f}" if key in found else "" for key in ("cpu_p50_ms", "cpu_p95_ms"))
        table.add_row(name, f"{found['p50_ms']:.1f}", f"{found['p95_ms']:.1f}", f"{found['per_s']:.0f}", *cpu)
    Console().print(table)
    print(f"first look {figures['lay_out_s']:.1f} s; words {figures['words_s']:.1f} s more; {figures['rss_mb']:.0f} MB")
    worst = max(found["p95_ms"] for found in figures["requests"].values())
    met = worst < _TARGET_P95_MS and figures["rss_mb"] < _TARGET_RSS_MB
    print(json.dumps({"rows": rows, "runs": runs_made, "worst_p95_ms": round(worst, 1), "met": met, **figures}))


def make(runs: Path, rows: int, length: int) -> list[str]:
    """The run `big`; ids of its prompts."""
    run = RunFolder.create(runs, "big")
    save_config(run, resolve(RunConfig(roles=Roles(reasoning="rehearsal")), load_teachers()))
    rng = np.random.default_rng(0)
    # Words are as frequent as in a language: the n-th most frequent one 1/n of the first.
    chances = 1 / np.arange(1, _VOCABULARY + 1)
    drawn = rng.choice(_VOCABULARY, (_POOL, length), p=chances / chances.sum())
    pool = pa.array([" ".join(map(word, line)) for line in drawn])
    prompts = [f"{number:016x}" for number in range(-(-rows // len(VARIANTS)))]
    fixed = {"kind": "harmful", "category": "made", "source": "made", "source_license": "none", "behaviour": "made"}
    texts = pool.take(pa.array(np.arange(len(prompts)) % _POOL))
    run.write("prompts", _table(Prompt, len(prompts), fixed, prompt_id=prompts, behaviour_id=prompts, text=texts))
    ids = [f"{int(number):016x}" for number in rng.permutation(rows)]
    flagged = rng.random(rows) < 0.2
    with ExitStack() as stack:
        kinds = {"responses": Response, "verdicts": Verdict, "judgements": Judgement}
        writers = {
            name: stack.enter_context(pq.ParquetWriter(run.table_path(name), arrow_schema(kind), compression="zstd"))
            for name, kind in kinds.items()
        }
        for begin in range(0, rows, _PIECE):
            own = slice(begin, min(begin + _PIECE, rows))
            for name, table in _piece(own, ids[own], prompts, pool, flagged[own], rng).items():
                writers[name].write_table(table)
    run.write("accepted", pa.table({"response_id": [ids[at] for at in np.flatnonzero(~flagged)]}))
    lost = [ids[at] for at in np.flatnonzero(flagged)]
    objection = {"check_name": "pattern_flagged", "reason": "pattern flagged", "value": "weak_vacillation"}
    columns = {name: [value] * len(lost) for name, value in objection.items()}
    run.write("rejected", pa.table({"response_id": lost, **columns}))
    run.record("prompts", counts={"harmful": len(prompts), "benign": 0})
    run.record("generate", counts={"planned": rows, "kept": rows, "failed": 0, "asked": rows})
    _fill_ledger(run, rows)
    return prompts


def word(number: int) -> str:
    """The word of a place in the vocabulary."""
    return f"{chr(97 + number % 26)}{'aeiou'[number % 5]}{number:x}"


def _piece(
    own: slice, ids: list[str], prompts: list[str], pool: pa.Array, flagged: Any, rng: np.random.Generator
) -> dict[str, pa.Table]:
    """Some of the rows as tables."""
    count, of = len(ids), len(VARIANTS)
    texts = pool.take(pa.array(rng.integers(0, _POOL, count)))
    places = np.arange(own.start, own.stop)
    label = {name: pa.array(flagged & (name in ("overthinking", "weak_vacillation"))) for name in LABELS}
    evidence = pa.array(np.where(flagged, json.dumps({"weak_vacillation": word(0)}), "{}"))
    judged = {"judge": "made", "refused": True, "reason": "", "kind": "patterns", "requests": 1}
    answered = {"teacher": "made", "model": "made", "sampling": "{}", "reasoning_source": "inline"}
    return {
        "responses": _table(
            Response, count, {**answered, "finish_reason": "stop", "input_tokens": 80}, response_id=ids,
            request_key=ids, prompt_id=[prompts[at // of] for at in places], reasoning=texts,
            answer=pool.take(pa.array(rng.integers(0, _POOL, count))), variant=[VARIANTS[at % of] for at in places],
            output_tokens=rng.integers(50, 4000, count), latency_s=rng.random(count) * 60,
        ),
        "verdicts": _table(Verdict, count, judged, response_id=ids, evidence=evidence, **label),
        "judgements": _table(Judgement, count, judged, response_id=ids, evidence=evidence, **label),
    }  # fmt: skip


def _table(row: type, count: int, fixed: dict[str, Any], **columns: Any) -> pa.Table:
    """A table of a kind of row: columns, the same value in all rows, and elsewhere 0, "" or null."""
    schema = arrow_schema(row)
    empty = {pa.string(): "", pa.int64(): 0, pa.float64(): None, pa.bool_(): None}
    nothing = {"compliance", "safety", "cost", "score", "disagreement"}
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.array(
                [fixed.get(field.name, None if field.name in nothing else empty[field.type])] * count, field.type
            )
            for field in schema
        },
        schema=schema,
    )


def copies(runs: Path, count: int) -> None:
    """So many small runs beside the large one, each with a configuration and a ledger of its own."""
    first = RunFolder.create(runs, "run-0")
    shutil.copy(runs / "big" / "run.yaml", first.path)
    for stage in ("prompts", "generate", "judge", "repair", "check"):
        first.record(stage, counts={"planned": 9, "kept": 9, "harmful": 9, "benign": 0, "responses": 9, "unscored": 0})
    Ledger(first.path / "ledger.sqlite").close()
    for number in range(1, count):
        copy = RunFolder(shutil.copytree(first.path, runs / f"run-{number}"))
        write_json(copy.path / "manifest.json", {**first.manifest(), "name": copy.name})


def _fill_ledger(run: RunFolder, rows: int) -> None:
    path = run.path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        values = ((f"{at:016x}", "made", "{}", 80, 400, 0.001, 1.0, 0.0, "") for at in range(rows))
        db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    db.close()


class Server:
    """Where the service is, and the most memory that it was seen to take."""

    def __init__(self, url: str, process: int) -> None:
        self.url, self._process, self.most_mb = url, psutil.Process(process), 0.0

    def look(self) -> None:
        """Note how much memory it takes now."""
        self.most_mb = max(self.most_mb, self._process.memory_info().rss / 1e6)

    def cpu_ms(self) -> float:
        """The computing time of all its threads so far."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text().split()[0]) for path in tasks) / 1e6


@contextmanager
def serving(runs: Path) -> Iterator[Server]:
    """`saferthoughts serve` on these runs."""
    command = [sys.executable, "-m", "saferthoughts", "--runs", str(runs), "serve", "--port", "0", "--rate", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        line = ""
        for line in process.stdout:
            if "/login?code=" in line:
                break
        url = line.split()[-1].partition("/login")[0]
        while True:
            try:
                httpx.get(f"{url}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        process.wait()


async def measured(
    server: Server, secret: str, prompts: list[str], rows: int, requests: int, runs: int
) -> dict[str, Any]:
    """Latencies by kind of request, and memory."""
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {secret}"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=1800) as client,
        httpx.AsyncClient(base_url=server.url, limits=limits, timeout=120) as browser,
    ):
        await browser.post("/login", data={"token": secret}, headers={"origin": server.url})
        began = time.perf_counter()
        (await client.get("/runs/big/rows?limit=1")).raise_for_status()
        lay_out_s = time.perf_counter() - began
        began = time.perf_counter()
        while (await client.get(f"/runs/big/rows?limit=1&q={word(0)}")).status_code != 200:
            await asyncio.sleep(0.2)
        words_s = time.perf_counter() - began
        server.look()
        kinds = _kinds(client, browser, prompts, rows, runs)
        found = {name: await _timed(server, *kind, requests) for name, kind in kinds.items()}
        for name, kind in kinds.items():
            found[name] |= await _computed(server, *kind, requests // 4)
        async with AsyncExitStack() as stack:
            for _ in range(_LISTENERS):
                await stack.enter_async_context(client.stream("GET", "/runs/big/events"))
            for name in ("GET /runs/{name}", "page: rows"):
                found[f"{name}, {_LISTENERS} listeners"] = await _timed(server, *kinds[name], requests)
    times = {"lay_out_s": round(lay_out_s, 2), "words_s": round(words_s, 2)}
    return {"requests": found, **times, "rss_mb": round(server.most_mb, 1)}


def _kinds(
    client: httpx.AsyncClient, browser: httpx.AsyncClient, prompts: list[str], rows: int, runs: int
) -> dict[str, tuple[httpx.AsyncClient, Callable[[], str]]]:
    """Who asks for what, by the name of the kind of request."""
    rng = random.Random(1)
    sorts = [sign + name for name in ("worst", "output_tokens", "latency_s", "patterns") for sign in ("", "-")]

    def search() -> str:
        # From words that a tenth of the rows have to those that a few have; each search is asked once or twice.
        return word(min(int(100 * 10 ** (2.3 * rng.random())), _VOCABULARY - 1))

    filters = ("variant:eq:improved", "patterns:ge:1", "outcome:eq:accepted&where=output_tokens:gt:300")
    return {
        "GET /health (bare)": (client, lambda: "/health"),
        "GET /runs/{name}": (client, lambda: "/runs/big"),
        "GET rows": (client, lambda: f"/runs/big/rows?offset={rng.randrange(rows)}"),
        "GET rows, filtered": (
            client,
            lambda: f"/runs/big/rows?where={rng.choice(filters)}&offset={rng.randrange(rows // 10)}",
        ),
        "GET rows, whole texts": (client, lambda: f"/runs/big/rows?texts=true&offset={rng.randrange(rows)}"),
        "GET rows, sorted": (
            client,
            lambda: f"/runs/big/rows?sort={rng.choice(sorts)}&where=output_tokens:gt:{rng.randrange(4000)}",
        ),
        "GET rows, searched": (client, lambda: f"/runs/big/rows?q={search()}"),
        "page: rows, searched and sorted": (
            browser,
            lambda: f"/ui/runs/big/rows?q={search()}&sort={rng.choice(sorts)}",
        ),
        "page: rows": (browser, lambda: f"/ui/runs/big/rows?flag=any&offset={rng.randrange(rows // 10)}"),
        "page: a prompt": (browser, lambda: f"/ui/runs/big/rows/{rng.choice(prompts)}"),
        "page: list of runs": (browser, lambda: f"/?offset={12 * rng.randrange(max(runs // 12, 1))}"),
        "page: list of runs, searched": (browser, lambda: f"/?q=run-{rng.randrange(100)}"),
        "page: the run": (browser, lambda: "/ui/runs/big"),
    }


async def _timed(server: Server, client: httpx.AsyncClient, path: Callable[[], str], requests: int) -> dict[str, float]:
    times: list[float] = []
    free = asyncio.Semaphore(_IN_FLIGHT)

    async def ask(where: str) -> None:
        async with free:
            began = time.perf_counter()
            answer = await client.get(where)
            times.append(1000 * (time.perf_counter() - began))
            if answer.status_code != 200:
                raise RuntimeError(f"{where}: {answer.status_code} {answer.text[:200]}")
            server.look()

    began = time.perf_counter()
    await asyncio.gather(*(ask(path()) for _ in range(requests)))
    seconds = time.perf_counter() - began
    times.sort()
    return {
        "p50_ms": round(times[len(times) // 2], 2),
        "p95_ms": round(times[int(0.95 * (len(times) - 1))], 2),
        "per_s": round(requests / seconds, 1),
    }


async def _computed(
    server: Server, client: httpx.AsyncClient, path: Callable[[], str], requests: int
) -> dict[str, float]:
    """The service's computing time for a request, one at a time."""
    times = []
    for _ in range(requests):
        before = server.cpu_ms()
        await client.get(path())
        times.append(server.cpu_ms() - before)
    times.sort()
    return {
        "cpu_p50_ms": round(times[len(times) // 2], 2),
        "cpu_p95_ms": round(times[int(0.95 * (len(times) - 1))], 2),
    }


if __name__ == "__main__":
    main()
