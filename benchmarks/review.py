"""What the embedded Argilla server costs: start-up, memory, logging records, list pages and filters.

    python -m benchmarks.review [--records 10000] [--quick]

Starts the real server, logs records of 2 KB with the client that `review push` uses, and asks for pages as the web
pages do, beside a bare request for the server's version in the same seconds. Prints a table, and last one line of JSON.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from curation.review.home import address, connect
from curation.review.questions import record, settings
from curation.review.quiet import quiet
from curation.review.serve import serving
from pipelines.progress import console

_BATCH = 200
_ASKS = 40


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed and memory of the embedded Argilla server.")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="2,000 records, under 50 s")
    options = parser.parse_args()
    count = 2_000 if options.quick else options.records
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        with serving(runs / ".argilla", 0, 2, console.print) as running:
            figures = {"start_s": running.seconds, **measured(runs, count)}
            figures["rss_mb"] = psutil.Process(running.process).memory_info().rss / 1e6
    table = Table(title=f"embedded Argilla, {count:,} records", box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    print(json.dumps({"records": count, **{name: round(value, 2) for name, value in figures.items()}}))


def measured(runs: Path, count: int) -> dict[str, float]:
    """Log records, then ask for pages."""
    import argilla as rg

    client = connect(runs)
    dataset = rg.Dataset(name="bench", workspace="saferthoughts", settings=settings(1, False), client=client)
    with quiet():
        dataset.create()
        records = [record(_row(number), False) for number in range(count)]
        begin = time.perf_counter()
        for first in range(0, count, _BATCH):
            part = records[first : first + _BATCH]
            dataset.records.log(part, batch_size=len(part))
        seconds = time.perf_counter() - begin
    url, key = address(runs)
    search = f"{url}/api/v1/me/datasets/{dataset.id}/records/search?limit=10&offset={{}}"
    plain = [_timed(f"{url}/api/v1/version", key, None) for _ in range(_ASKS)]
    asked = {name: [_timed(search.format(7 * at), key, body) for at in range(_ASKS)] for name, body in _BODIES.items()}
    figures = {"log_records_per_s": count / seconds, "version_p50_ms": statistics.median(plain)}
    figures |= {f"{name}_p95_ms": _p95(times) for name, times in asked.items()}
    figures["filter_p95_ms"] = max(_p95(times) for times in asked.values())
    figures["filter_vs_version"] = figures["filter_p95_ms"] / _p95(plain)
    return figures


_PENDING = {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": ["pending"]}
_CONFIG = {"type": "terms", "scope": {"entity": "metadata", "metadata_property": "config"}, "values": ["improved"]}
_BODIES: dict[str, dict[str, Any]] = {
    "page": {"filters": {"type": "and", "and": [_PENDING]}},
    "metadata": {"filters": {"type": "and", "and": [_PENDING, _CONFIG]}},
    "text": {"query": {"text": {"q": "word17 -word18"}}, "filters": {"type": "and", "and": [_PENDING]}},
    "sorted": {"sort": [{"scope": {"entity": "record", "property": "inserted_at"}, "order": "desc"}]},
}


def _row(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    words = " ".join(f"word{rng.randrange(2000)}" for _ in range(240))
    return {
        "response_id": f"r{number}",
        "prompt": words[:200],
        "reasoning": words,
        "answer": "Sorry, no.",
        "kind": "harmful",
        "config": rng.choice(["direct", "improved", "short"]),
        "category": "misinformation",
        "stratum": "plain/default/accepted",
    }


def _timed(url: str, key: str, body: dict[str, Any] | None) -> float:
    """Milliseconds of one request."""
    headers = {"X-Argilla-Api-Key": key, "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(), headers=headers)
    begin = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - begin)


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


if __name__ == "__main__":
    main()
