"""What the service costs: a run's state and the row browser at 100,000 rows, alone and with 200 listeners; its memory.

    python -m benchmarks.service [--rows 100000] [--quick]

Makes a run of synthetic rows of 1.7 KB, judged and checked, with a ledger of as many answers; serves it by the real
command; asks with a bounded client, four requests under way at most, beside a bare request for /health in the same
minutes. Prints a table, and last one line of JSON. The first look at rows lays them out for paging and is told apart.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipelines.records import LABELS, Judgement, Prompt, Response, Verdict, arrow_schema
from pipelines.runs import RunFolder
from pipelines.settings.config import Roles, RunConfig, save_config
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import load_teachers
from pipelines.teachers.ledger import Ledger
from service.store import Store
from service.tokens import Tokens

VARIANTS = ("direct", "realsafe", "improved", "short", "template", "nocot")
_WORDS = 260
_IN_FLIGHT = 4
_LISTENERS = 200
_TARGET_P95_MS, _TARGET_RSS_MB = 100.0, 500.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Latency and memory of the service.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="20,000 rows and fewer requests, under 50 s")
    options = parser.parse_args()
    rows, requests = (20_000, 100) if options.quick else (options.rows, 400)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        prompts = make(runs, rows)
        secret = Tokens(Store(runs)).add("bench", "read")
        with serving(runs) as server:
            figures = asyncio.run(measured(server, secret, prompts, rows, requests))
    table = Table(title=f"the service at {rows:,} rows, {_IN_FLIGHT} requests under way", box=None)
    for column in ("request", "p50 ms", "p95 ms", "a second"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for name, found in figures["requests"].items():
        table.add_row(name, f"{found['p50_ms']:.1f}", f"{found['p95_ms']:.1f}", f"{found['per_s']:.0f}")
    Console().print(table)
    print(f"first look at the rows: {figures['lay_out_s']:.1f} s; memory at most {figures['rss_mb']:.0f} MB")
    worst = max(found["p95_ms"] for found in figures["requests"].values())
    met = worst < _TARGET_P95_MS and figures["rss_mb"] < _TARGET_RSS_MB
    print(json.dumps({"rows": rows, "worst_p95_ms": round(worst, 1), "met": met, **figures}))


def make(runs: Path, rows: int) -> list[str]:
    """The run `big`; ids of its prompts."""
    run = RunFolder.create(runs, "big")
    save_config(run, resolve(RunConfig(roles=Roles(reasoning="rehearsal")), load_teachers()))
    rng = np.random.default_rng(0)
    words = np.array([f"{chr(97 + n % 26)}{'aeiou'[n % 5]}{chr(97 + n // 26 % 26)}" for n in range(600)])
    pool = [" ".join(words[rng.integers(0, 600, _WORDS)]) for _ in range(2000)]
    prompts = [f"{number:016x}" for number in range(-(-rows // len(VARIANTS)))]
    run.write("prompts", _table(Prompt, [_prompt(name, pool[at % 2000]) for at, name in enumerate(prompts)]))
    ids = [f"{int(number):016x}" for number in rng.permutation(rows)]
    places = [divmod(at, len(VARIANTS)) for at in range(rows)]
    texts = [pool[int(one)] + pool[int(two)][:200] for one, two in rng.integers(0, 2000, (rows, 2))]
    rows_of_responses = [_response(ids[at], prompts[p], VARIANTS[v], texts[at]) for at, (p, v) in enumerate(places)]
    run.write("responses", _table(Response, rows_of_responses).sort_by("response_id"))
    flagged = rng.random(rows) < 0.2
    run.write("verdicts", _table(Verdict, [_verdict(ids[at], bool(flagged[at]), texts[at]) for at in range(rows)]))
    rows_of_judgements = [_judgement(ids[at], bool(flagged[at]), texts[at]) for at in range(rows)]
    run.write("judgements", _table(Judgement, rows_of_judgements))
    run.write("accepted", pa.table({"response_id": [ids[at] for at in range(rows) if not flagged[at]]}))
    lost = [ids[at] for at in range(rows) if flagged[at]]
    fixed = {"check_name": "pattern_flagged", "reason": "pattern flagged", "value": "weak_vacillation"}
    columns = {name: [value] * len(lost) for name, value in fixed.items()}
    run.write("rejected", pa.table({"response_id": lost, **columns}))
    run.record("prompts", counts={"harmful": len(prompts), "benign": 0})
    run.record("generate", counts={"planned": rows, "kept": rows, "failed": 0, "asked": rows})
    _fill_ledger(run, rows)
    return prompts


def _table(row: type, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(row))


def _prompt(name: str, text: str) -> dict[str, Any]:
    constant = {"kind": "harmful", "template_id": "", "category": "made", "source": "made", "source_license": "none"}
    return {"prompt_id": name, "behaviour_id": name, "behaviour": text[:80], "text": text[:300], **constant}


def _response(name: str, prompt: str, variant: str, text: str) -> dict[str, Any]:
    return {
        "response_id": name,
        "prompt_id": prompt,
        "variant": variant,
        "teacher": "made",
        "model": "made",
        "sampling": "{}",
        "sample": 0,
        "attempt": 0,
        "parent_id": "",
        "reasoning": text,
        "answer": text[:400],
        "reasoning_source": "inline",
        "finish_reason": "stop",
        "input_tokens": 80,
        "output_tokens": len(text) // 4,
        "latency_s": 1.0,
        "cost": None,
        "request_key": name,
    }


def _flags(flagged: bool) -> dict[str, bool]:
    return {label: flagged and label in ("overthinking", "weak_vacillation") for label in LABELS}


def _verdict(name: str, flagged: bool, text: str) -> dict[str, Any]:
    evidence = json.dumps({"weak_vacillation": text[100:160]} if flagged else {})
    return {
        "response_id": name,
        "judge": "made",
        **_flags(flagged),
        "refused": True,
        "compliance": None,
        "safety": None,
        "disagreement": None,
        "evidence": evidence,
        "reason": "",
        "safety_reason": "",
    }


def _judgement(name: str, flagged: bool, text: str) -> dict[str, Any]:
    evidence = json.dumps({"weak_vacillation": text[100:160]} if flagged else {})
    return {
        "response_id": name,
        "judge": "made",
        "kind": "patterns",
        **_flags(flagged),
        "refused": True,
        "compliance": None,
        "safety": None,
        "score": None,
        "evidence": evidence,
        "analysis": "",
        "reason": "",
        "requests": 1,
        "input_tokens": 0,
        "output_tokens": 0,
        "cost": None,
    }


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


async def measured(server: Server, secret: str, prompts: list[str], rows: int, requests: int) -> dict[str, Any]:
    """Latencies by kind of request, and memory."""
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {secret}"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=120) as client,
        httpx.AsyncClient(base_url=server.url, limits=limits, timeout=120) as browser,
    ):
        await browser.post("/login", data={"token": secret}, headers={"origin": server.url})
        began = time.perf_counter()
        (await client.get("/runs/big/rows?limit=1")).raise_for_status()
        lay_out_s = time.perf_counter() - began
        server.look()
        rng = random.Random(1)
        filters = ("variant:eq:improved", "patterns:ge:1", "outcome:eq:accepted&where=output_tokens:gt:300")
        kinds: dict[str, tuple[httpx.AsyncClient, Callable[[], str]]] = {
            "GET /health (bare)": (client, lambda: "/health"),
            "GET /runs/{name}": (client, lambda: "/runs/big"),
            "GET rows": (client, lambda: f"/runs/big/rows?offset={rng.randrange(rows)}"),
            "GET rows, filtered": (
                client,
                lambda: f"/runs/big/rows?where={rng.choice(filters)}&offset={rng.randrange(rows // 10)}",
            ),
            "GET rows, whole texts": (client, lambda: f"/runs/big/rows?texts=true&offset={rng.randrange(rows)}"),
            "page: rows": (browser, lambda: f"/ui/runs/big/rows?flag=any&offset={rng.randrange(rows // 10)}"),
            "page: a prompt": (browser, lambda: f"/ui/runs/big/rows/{rng.choice(prompts)}"),
            "page: the run": (browser, lambda: "/ui/runs/big"),
        }
        found = {name: await _timed(server, *kind, requests) for name, kind in kinds.items()}
        async with AsyncExitStack() as stack:
            for _ in range(_LISTENERS):
                await stack.enter_async_context(client.stream("GET", "/runs/big/events"))
            for name in ("GET /runs/{name}", "page: rows"):
                found[f"{name}, {_LISTENERS} listeners"] = await _timed(server, *kinds[name], requests)
    return {"requests": found, "lay_out_s": round(lay_out_s, 2), "rss_mb": round(server.most_mb, 1)}


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


if __name__ == "__main__":
    main()
