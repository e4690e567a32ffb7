"""What a large run costs: checks, contamination, selection, release and verify at 10,000,000 rows, beside a tenth.

Makes runs of synthetic responses of 1.7 KB in a temporary folder, and does each stage in a process of its own. Growth
is in CPU seconds, which other programs disturb least.

    python -m benchmarks.scale [--rows 10000000] [--folder DIR] [--section curation|release] [--quick]

Prints a table as it goes, and last one line of JSON. 10,000,000 rows take 45 GB of disk.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.curation import apart, checks, made, overlap
from benchmarks.release import build, check, released
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config


def select(run: RunFolder) -> None:
    """`saferthoughts select` of a tenth of the rows."""
    import pyarrow.parquet as pq

    from curation.selection import select

    rows = pq.read_metadata(run.table_path("accepted")).num_rows
    config = load_config(run)
    save_config(
        run, config.model_copy(update={"selection": config.selection.model_copy(update={"harmful": rows // 10})})
    )
    select(run)
    if not run.table_path("selected").exists():
        raise RuntimeError("nothing was selected")
    run.table_path("selected").unlink()


STAGES: dict[str, tuple[Callable[[Path, str, int], RunFolder], dict[str, Callable[[RunFolder], None]]]] = {
    "curation": (made, {"checks": checks, "contamination": overlap}),
    "release": (released, {"select": select, "build": build, "verify": check}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Stages at scale.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument(
        "--folder", type=Path, help="where the runs are made; the system's temporary folder if not given"
    )
    parser.add_argument("--section", choices=STAGES, help="one half alone; both if not given")
    parser.add_argument("--quick", action="store_true", help="60,000 rows, under 50 s")
    options = parser.parse_args()
    rows = 60_000 if options.quick else options.rows
    figures: dict[str, float] = {}
    for make, stages in [STAGES[options.section]] if options.section else STAGES.values():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            before: dict[str, float] = {}
            for name, count in (("small", rows // 10), ("large", rows)):
                run = make(Path(folder), name, count)
                for stage, work in stages.items():
                    seconds, peak, cpu = apart(work, run)
                    print(f"{stage}, {count:,} rows: {seconds:,.1f} s, {cpu:,.1f} CPU s, {peak:.2f} GB", flush=True)
                    if name == "small":
                        before[stage] = cpu
                    else:
                        figures |= {f"{stage}_s": seconds, f"{stage}_cpu_s": cpu, f"{stage}_peak_gb": peak}
                        figures[f"{stage}_growth_10x"] = cpu / before[stage]
                shutil.rmtree(run.path)
    print(json.dumps({"rows": rows, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
