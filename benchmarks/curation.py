"""What curation costs in time and memory: all checks, single queries, near-duplicates, contamination.

Makes a run of synthetic responses of 1.7 KB, with faults planted in a thousandth of them, in a temporary folder, and
measures each piece in a process of its own beside a full scan of the same file, the least that any reading costs.

    python -m benchmarks.curation [--rows 1000000] [--quick]

Prints a table, and last one line of JSON.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines.records import Prompt, Response, Verdict, arrow_schema
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, save_config

_GROUP = 20_000
_SENTENCES, _PER_ROW = 50_000, 17
_PROMPTS = 4_000
_ITEMS = 3_000
_FAULTY = 1_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time and memory of curation.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="100,000 rows, under 50 s")
    options = parser.parse_args()
    rows = 100_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as folder:
        large = made(Path(folder), "large", rows)
        small = made(Path(folder), "small", rows // 10)
        figures = measured(large, small, rows)
    show(figures, rows)
    print(json.dumps({"rows": rows, **{name: round(value, 4) for name, value in figures.items()}}))


def measured(large: RunFolder, small: RunFolder, rows: int) -> dict[str, float]:
    """Every figure. Seconds, gigabytes, and ratios."""
    scan_s, _, _ = apart(scan, large)
    checks_s, checks_gb, _ = apart(checks, large)
    tenth_s, _, _ = apart(checks, small)
    queries_s, _, _ = apart(counts_and_quantiles, large)
    exact_s, _, _ = apart(exact_duplicates, large)
    near_s, near_gb, _ = apart(near, large)
    overlap_s, overlap_gb, _ = apart(overlap, large)
    near_rows = min(rows, 100_000)
    return {
        "full_scan_s": scan_s,
        "all_checks_s": checks_s,
        "vs_full_scan": checks_s / scan_s,
        "growth_10x": checks_s / tenth_s,
        "counts_and_quantiles_s": queries_s,
        "exact_duplicates_s": exact_s,
        "near_duplicates_s_per_100k": near_s * 100_000 / near_rows,
        "contamination_s_per_million": overlap_s * 1_000_000 / rows,
        "contamination_vs_full_scan": overlap_s / scan_s,
        "peak_rss_gb": max(checks_gb, near_gb, overlap_gb),
    }


def apart(work: Callable[[RunFolder], None], run: RunFolder) -> tuple[float, float, float]:
    """Seconds of the work itself, and the peak memory in GB and the CPU seconds of a fresh process that does nothing
    else, with its children's."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_timed, args=(work, str(run.path), theirs))
    process.start()
    theirs.close()
    seconds, peak, cpu = ours.recv()
    process.join()
    return float(seconds), float(peak), float(cpu)


def _timed(work: Callable[[RunFolder], None], path: str, to: Connection) -> None:
    run = RunFolder(Path(path))
    begin = time.perf_counter()
    work(run)
    seconds = time.perf_counter() - begin
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    to.send((seconds, max(one.ru_maxrss for one in used) / 1e6, cpu))


def scan(run: RunFolder) -> None:
    """Read every byte of the responses once: the floor."""
    import duckdb

    with duckdb.connect() as db:
        table = db.read_parquet(str(run.table_path("responses")))
        table.aggregate("sum(strlen(reasoning)) + sum(strlen(answer))").fetchall()


def checks(run: RunFolder) -> None:
    """`saferthoughts check`: all queries, and the tables written."""
    from curation.quality.checks import check

    done = check(run)
    # Two of the five faults, a near copy and an overlap, are no affair of these checks.
    planted = done.responses // _FAULTY * 3 // 5
    if done.rejected < planted:
        raise RuntimeError(f"{planted} rows were planted with faults, {done.rejected} were rejected")


def counts_and_quantiles(run: RunFolder) -> None:
    """What a person asks first: `saferthoughts sql`."""
    from curation.sql.query import query

    query(
        run,
        "SELECT variant, count(*), quantile_cont(length(reasoning), [0.1, 0.5, 0.9]), avg(length(answer)) "
        "FROM responses GROUP BY variant",
    )


def exact_duplicates(run: RunFolder) -> None:
    """Texts that stand there more than once, by their hash."""
    from curation.sql.query import query

    query(run, "SELECT count(*) - count(DISTINCT hash(reasoning, answer)) FROM responses")


def near(run: RunFolder) -> None:
    """MinHash over the first 100,000 responses."""
    from curation.overlap.duplicates import near_duplicates

    with run.opened("responses") as file:
        groups = [file.read_row_group(number, ["reasoning"]) for number in range(min(file.num_row_groups, 5))]
    found = list(near_duplicates(pa.concat_tables(groups)["reasoning"].chunks, 5, 0.8))
    if not found:
        raise RuntimeError("the planted duplicates were not found")


def overlap(run: RunFolder) -> None:
    """13-grams of 3,000 long items in every response."""
    from curation.overlap.contamination import EvalSet, search_texts

    texts = sentences(np.random.default_rng(1), _ITEMS).to_pylist()
    items = EvalSet("planted", tuple(map(str, range(_ITEMS))), tuple(texts))
    hits = 0
    with run.opened("responses") as file:
        for batch in file.iter_batches(_GROUP, columns=["reasoning"]):
            hits += len(search_texts(items, pa.chunked_array([batch.column(0)])))
    if not hits:
        raise RuntimeError("the planted overlaps were not found")


def sentences(rng: np.random.Generator, count: int) -> pa.Array:
    """Sentences of 16 words, a quarter of them English ones, the others made up."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size=size)) for size in rng.integers(2, 9, 5_000)])
    drawn = rng.choice(words, (count, 16))
    # As in English text, by which the checks know it.
    drawn[:, ::4] = rng.choice(np.array(["the", "of", "and", "to", "is"]), (count, 4))
    return pa.array([" ".join(row) + ". " for row in drawn])


def made(folder: Path, name: str, rows: int) -> RunFolder:
    """A run with prompts, responses and verdicts, nothing asked of anybody."""
    run = RunFolder.create(folder, name)
    save_config(run, RunConfig(variants=("direct",)))
    rng = np.random.default_rng(0)
    run.write("prompts", _prompts(sentences(rng, _PROMPTS)))
    pool = sentences(rng, _SENTENCES)
    planted = sentences(np.random.default_rng(1), _ITEMS)
    with (
        pq.ParquetWriter(run.table_path("responses"), arrow_schema(Response), compression="zstd") as responses,
        pq.ParquetWriter(run.table_path("verdicts"), arrow_schema(Verdict), compression="zstd") as verdicts,
    ):
        for first, texts in _texts(rng, pool, planted, rows):
            ids = [f"{number:016x}" for number in range(first, first + len(texts))]
            responses.write_table(_responses(ids, texts))
            verdicts.write_table(_verdicts(ids))
    run.record("judge", judge="none")
    return run


def _texts(rng: np.random.Generator, pool: pa.Array, planted: pa.Array, rows: int) -> Iterator[tuple[int, pa.Array]]:
    """Reasonings, a row group at a time; every thousandth has one of five faults."""
    for first in range(0, rows, _GROUP):
        count = min(_GROUP, rows - first)
        picked = pool.take(pa.array(rng.integers(0, len(pool), count * _PER_ROW)))
        offsets = pa.array(np.arange(0, count * _PER_ROW + 1, _PER_ROW, dtype=np.int32))
        texts = pc.binary_join(pa.ListArray.from_arrays(offsets, picked), "").to_pylist()
        for place in range(0, count, _FAULTY):
            fault = (first + place) // _FAULTY % 5
            text = texts[place]
            texts[place] = [
                text[:100] * 20,
                text + " Write to someone.real@mail-server.org today.",
                text + " According to the instruction, I say no more.",
                texts[place - 1] if place else "According to the instructions. " + text,
                text + planted[first // _FAULTY % len(planted)].as_py(),
            ][fault]
        yield first, pa.array(texts, pa.string())


def _prompts(texts: pa.Array) -> pa.Table:
    ids = [f"p{number:05d}" for number in range(len(texts))]
    constant = {"kind": "harmful", "template_id": "", "category": "made", "source": "made", "source_license": "none"}
    return _table(
        Prompt, len(texts), constant, {"prompt_id": ids, "behaviour_id": ids, "behaviour": texts, "text": texts}
    )


def _responses(ids: list[str], texts: pa.Array) -> pa.Table:
    constant = {
        "variant": "direct",
        "teacher": "made",
        "model": "made",
        "sampling": "{}",
        "parent_id": "",
        "cost": None,
        "sample": 0,
        "attempt": 0,
        "answer": "Sorry, no.",
        "reasoning_source": "inline",
        "finish_reason": "stop",
        "input_tokens": 100,
        "output_tokens": 400,
        "latency_s": 1.0,
        "request_key": "",
    }
    prompts = [f"p{int(name, 16) % _PROMPTS:05d}" for name in ids]
    return _table(Response, len(ids), constant, {"response_id": ids, "prompt_id": prompts, "reasoning": texts})


def _verdicts(ids: list[str]) -> pa.Table:
    constant: dict[str, Any] = dict.fromkeys(arrow_schema(Verdict).names, False)
    constant |= {"judge": "none", "refused": True, "compliance": None, "safety": None, "disagreement": None}
    constant |= {"evidence": "{}", "reason": "", "safety_reason": ""}
    return _table(Verdict, len(ids), constant, {"response_id": ids})


def _table(row: Any, count: int, constant: dict[str, Any], columns: dict[str, Any]) -> pa.Table:
    schema = arrow_schema(row)
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.repeat(pa.scalar(constant[field.name], field.type), count)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def show(figures: dict[str, float], rows: int) -> None:
    """The figures as a table."""
    table = Table(title=f"curation, {rows:,} rows", box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
