"""Looking into a run's ledger: what was spent, all of it as a file, and what is not needed any more.

Reads ledger.sqlite, and for `prune` the run's plan; the commands are `saferthoughts ledger show|export|prune|forget`.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Group, RenderableType
from rich.table import Table

from pipelines.errors import UserError
from pipelines.generate.plan import plan, prompts_of
from pipelines.runs import RunFolder, atomic
from pipelines.settings.changes import is_imported
from pipelines.settings.config import load_config
from pipelines.teachers.ledger import Ledger

_COLUMNS = ("model", "from", "answers", "tokens in", "tokens out", "US dollars", "mean s")
_EXPORTED = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "model", "origin", "content", "reasoning_content", "reasoning")),
        ("finish_reason", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("latency_s", pa.float64()),
        ("created", pa.float64()),
    ]
)


@contextmanager
def _ledger(run: RunFolder, writing: bool = False) -> Iterator[Ledger]:
    """The run's ledger, which only `prune` and `forget` write to.

    Raises:
        UserError: there is none, or it is broken.
    """
    path = run.path / "ledger.sqlite"
    if not path.exists():
        raise UserError(f"{run.path} has no ledger yet. Run first: saferthoughts generate {run.name}")
    with closing(Ledger(path)) if writing else Ledger.reading(path) as ledger:
        yield ledger


def ledger_table(run: RunFolder) -> RenderableType:
    """Answers, tokens, cost and time by model; below, failures, refusals for good, and answers that were set aside."""
    table = Table(*_COLUMNS, box=None)
    with _ledger(run) as ledger:
        spent = ledger.spent_by_model()
        lists = {
            "failed in the last call": ledger.failures(),
            "refused for good, not asked again": ledger.refusals(),
            "could not be read, set aside": [(f"{key}: {reason}", 1) for key, reason in ledger.set_aside()],
        }
    for item in spent:
        cost = "no price" if item.cost is None else f"{item.cost:.4f}"
        counts = (f"{item.answers}", f"{item.input_tokens}", f"{item.output_tokens}")
        table.add_row(item.model, item.origin or "asked here", *counts, cost, f"{item.latency_s:.2f}")
    further = []
    for title, errors in lists.items():
        if errors:
            further.append(Table(title, "times", box=None))
            for error, count in errors:
                further[-1].add_row(error, f"{count}")
    return Group(table, *further) if further else table


def export_ledger(run: RunFolder, file: Path) -> int:
    """Write every answer as JSONL or parquet, by the file's ending; how many there are.

    Raises:
        UserError: another ending, or no ledger.
    """
    if file.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"'{file}' ends in neither .jsonl nor .parquet; the ending chooses the format.")
    count = 0
    with _ledger(run) as ledger, atomic(file) as temporary:
        if file.suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8") as lines:
                for row in ledger.rows():
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                    count += 1
        else:
            with pq.ParquetWriter(temporary, _EXPORTED, compression="zstd") as writer:
                for batch in _batches(ledger.rows()):
                    writer.write_table(pa.Table.from_pylist(batch, schema=_EXPORTED))
                    count += len(batch)
    return count


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, 1000)):
        yield batch


def prune_ledger(run: RunFolder, dry_run: bool) -> str:
    """Delete what neither the run's plan nor its judges and repairs ask for; what to tell of it.

    Raises:
        UserError: no ledger, no prompts or no configuration.
    """
    asks = () if is_imported(run) else plan(load_config(run), prompts_of(run))
    planned = {ask.key for ask in asks if ask.key}
    with _ledger(run, writing=not dry_run) as ledger:
        wanted = planned | ledger.used_keys()
        idle = [key for key in ledger.every_key() if key not in wanted]
        kept = ledger.totals().answers - len(idle)
        if dry_run:
            return f"{len(idle)} answers are not asked for any more and would be deleted; {kept} would stay"
        return f"{ledger.drop(idle)} answers deleted, {kept} kept"


def forget_refusals(run: RunFolder) -> str:
    """Forget which requests are refused for good; what to tell of it.

    Raises:
        UserError: no ledger.
    """
    with _ledger(run, writing=True) as ledger:
        count = ledger.forget_refusals()
    return f"{count} refused requests will be asked once more: saferthoughts generate {run.name}"
