"""Looking into a run's ledger: what was spent, all of it as a file, and what is not needed any more.

Reads ledger.sqlite, and for `prune_ledger` the run's plan. `Run.ledger` and `saferthoughts ledger` call it.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.generate.plan import plan, prompts_of
from pipelines.runs import RunFolder, atomic
from pipelines.settings.changes import is_imported
from pipelines.settings.config import load_config
from pipelines.teachers.ledger import Ledger, Spent

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


@dataclass(frozen=True, slots=True)
class Spending:
    """What a run asked and got.

    Attributes:
        models: Answers, tokens, US dollars (None where unpriced) and mean seconds, by model and where they are from.
        failures: Errors of the last call, with how often each occurred.
        refusals: Errors of requests that are refused for good and not asked again.
        set_aside: Requests whose answers could not be read, with the reason.
    """

    models: tuple[Spent, ...]
    failures: dict[str, int]
    refusals: dict[str, int]
    set_aside: dict[str, str]


@dataclass(frozen=True, slots=True)
class Pruning:
    """How many answers a run's prompts and configuration do not ask for, and how many they do."""

    idle: int
    kept: int


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


def spending(run: RunFolder) -> Spending:
    """What a run's ledger holds.

    Raises:
        UserError: there is none, or it is broken.
    """
    with _ledger(run) as ledger:
        lists = (dict(ledger.failures()), dict(ledger.refusals()), dict(ledger.set_aside()))
        return Spending(tuple(ledger.spent_by_model()), *lists)


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


def prune_ledger(run: RunFolder, dry_run: bool = False) -> Pruning:
    """Delete what neither the run's plan nor its judges and repairs ask for; with `dry_run` only count it.

    Raises:
        UserError: no ledger, no prompts or no configuration.
    """
    asks = () if is_imported(run) else plan(load_config(run), prompts_of(run))
    planned = {ask.key for ask in asks if ask.key}
    with _ledger(run, writing=not dry_run) as ledger:
        wanted = planned | ledger.used_keys()
        idle = [key for key in ledger.every_key() if key not in wanted]
        kept = ledger.totals().answers - len(idle)
        return Pruning(len(idle) if dry_run else ledger.drop(idle), kept)


def forget_refusals(run: RunFolder) -> int:
    """Let requests that are refused for good be asked once more; how many they are.

    Raises:
        UserError: no ledger.
    """
    with _ledger(run, writing=True) as ledger:
        return ledger.forget_refusals()
