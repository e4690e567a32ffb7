"""What a release costs in time and memory: building 100,000 and 1,000,000 rows, beside copying the same parquet.

Makes a run of synthetic accepted responses of 1.7 KB in a temporary folder, builds its release in a process of its own,
and copies the release's parquet files in another: read in batches, written with the same compression, nothing else.

    python -m benchmarks.release [--rows 1000000] [--quick]

Prints a table, and last one line of JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.curation import apart, made
from pipelines.records import LABELS, Judgement, arrow_schema
from pipelines.runs import RunFolder
from pipelines.settings.config import save_config
from pipelines.settings.options import Options, configured

_GROUP = 20_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time and memory of release build.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="60,000 rows, under 50 s")
    options = parser.parse_args()
    rows = 60_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as folder:
        small = released(Path(folder), "small", rows // 10)
        large = released(Path(folder), "large", rows)
        small_s, small_gb, _ = apart(build, small)
        large_s, large_gb, _ = apart(build, large)
        copy_s, copy_gb, _ = apart(copy, large)
        check_s, check_gb, _ = apart(check, large)
        size = sum(path.stat().st_size for path in (large.path / "release").rglob("*.parquet"))
        shards = len(list((large.path / "release").glob("data/default/*.parquet")))
    figures = {
        "build_s": large_s,
        "tenth_s": small_s,
        "growth_10x": large_s / small_s,
        "copy_s": copy_s,
        "vs_plain_copy": large_s / copy_s,
        "build_mb_per_s": size / large_s / 1e6,
        "copy_mb_per_s": size / copy_s / 1e6,
        "verify_s": check_s,
        "peak_rss_gb": max(large_gb, check_gb),
        "peak_rss_tenth_gb": small_gb,
        "copy_peak_rss_gb": copy_gb,
    }
    table = Table(title=f"release, {rows:,} rows, {size / 1e6:,.0f} MB of parquet in {shards} shards", box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.2f}")
    Console().print(table)
    print(json.dumps({"rows": rows, **{name: round(value, 4) for name, value in figures.items()}}))


def build(run: RunFolder) -> None:
    """`saferthoughts release build`."""
    from cards.release.build import build_release

    done = build_release(run)
    accepted = pq.read_metadata(run.table_path("accepted")).num_rows
    if sum(done.rows.values()) != accepted:
        raise RuntimeError(f"{accepted} rows were accepted, {done.rows} were released")


def copy(run: RunFolder) -> None:
    """The floor: every parquet file of the release read and written again."""
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        for number, path in enumerate(sorted((run.path / "release").rglob("*.parquet"))):
            with (
                pq.ParquetFile(path) as file,
                pq.ParquetWriter(
                    Path(folder) / f"{number}.parquet", file.schema_arrow, compression="zstd", compression_level=9
                ) as out,
            ):
                for batch in file.iter_batches(batch_size=1_000):
                    out.write_batch(batch, row_group_size=1_000)


def check(run: RunFolder) -> None:
    """`saferthoughts release verify`."""
    from cards.verify import verify

    found = verify(run.path / "release")
    if found.faults:
        raise RuntimeError(f"the release does not match itself: {found.faults}")


def released(folder: Path, name: str, rows: int) -> RunFolder:
    """A run of so many responses, all of them accepted."""
    run = made(folder, name, rows)
    save_config(run, configured(Options(variants=("direct",), teacher="rehearsal")))
    with (
        run.opened("responses") as responses,
        pq.ParquetWriter(run.table_path("accepted"), pa.schema([("response_id", pa.string())])) as accepted,
        pq.ParquetWriter(run.table_path("judgements"), arrow_schema(Judgement), compression="zstd") as judgements,
    ):
        for batch in responses.iter_batches(_GROUP, columns=["response_id"]):
            accepted.write_table(pa.table({"response_id": batch.column(0)}))
            judgements.write_table(_judgements(batch.column(0)))
    run.write("rejected", pa.table({name: pa.array([], pa.string()) for name in _REJECTED}))
    counts = {"responses": rows, "unscored": 0, "fixed": 0}
    per_variant = {**counts, **dict.fromkeys((*LABELS, "unsafe", "any_pattern"), 0)}
    pool = {"name": "made", "source": "made", "license": "none", "sha256": "0", "behaviours": 1, "templates": 0}
    run.record("prompts", pool={**pool, "duplicates_dropped": 0}, counts={"harmful": 4_000, "benign": 0})
    run.record("generate", counts={"planned": rows, "kept": rows, "failed": 0})
    run.record(
        "judge",
        counts=counts,
        by_variant={"direct": per_variant},
        requests={"rules": 0},
        rubrics={},
        vote="majority",
        cost_usd=0.0,
        disagreement={"rows": 0, "compared": 0, "by_label": {}},
    )
    run.record("check", counts={"responses": rows, "accepted": rows, "rejected": 0}, reasons=[], queries={})
    return run


_REJECTED = ("response_id", "check_name", "reason", "value")


def _judgements(ids: pa.Array) -> pa.Table:
    constant: dict[str, Any] = {"judge": "rules", "kind": "patterns", "evidence": "{}", "analysis": "", "reason": ""}
    constant |= dict.fromkeys((*LABELS, "refused"), False) | dict.fromkeys(
        ("requests", "input_tokens", "output_tokens"), 0
    )
    columns = [
        ids if field.name == "response_id" else pa.repeat(pa.scalar(constant.get(field.name), field.type), len(ids))
        for field in arrow_schema(Judgement)
    ]
    return pa.table(columns, schema=arrow_schema(Judgement))


if __name__ == "__main__":
    main()
