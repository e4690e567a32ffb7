"""Prompts to responses: the Distilabel pipeline that asks the teachers.

Reads run.yaml and prompts.parquet; writes ledger.sqlite, responses.parquet and failed.parquet. Run it with
`saferthoughts generate RUN`; running it again asks only for what the ledger does not hold.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipelines.config import RunConfig, load_config
from pipelines.engine import muted_imports, run_pipeline
from pipelines.errors import Interrupted, UserError
from pipelines.ledger import Ledger
from pipelines.plan import plan
from pipelines.progress import meter
from pipelines.records import Prompt, Response, arrow_schema, from_table
from pipelines.runs import RunFolder, atomic, file_hash
from pipelines.teachers import api_key

BATCH = 200


@dataclass(frozen=True, slots=True)
class Generated:
    """What a call of `generate` did: planned = kept + failed; `asked` requests were new."""

    planned: int
    kept: int
    failed: int
    asked: int
    cost: float
    first_error: str


def generate(run: RunFolder) -> Generated:
    """Ask for every response of the run's plan that is not in its ledger, and write the tables.

    Raises:
        UserError: a key is missing, a teacher refuses every request, or the run was interrupted.
    """
    config = load_config(run)
    prompts = from_table(Prompt, run.read("prompts"))
    planned = sum(1 for _ in plan(config, prompts))
    if planned == 0:
        raise UserError(f"{run.path} has nothing to generate: no prompts, or no variants. Look at its run.yaml.")
    for name, teacher in config.teachers.items():
        api_key(name, teacher)
    ledger = Ledger(run.path / "ledger.sqlite")
    ledger.forget_failures()
    before = ledger.totals().answers
    missing = sum(1 for ask in plan(config, prompts) if ask.key and ledger.get(ask.key) is None)
    stopped = _run(run, config, ledger, missing)
    fatal = ledger.fatal_error()
    totals = ledger.totals()
    ledger.close()
    if fatal:
        raise UserError(f"Stopped, since every request would fail: {fatal}")
    if stopped:
        raise Interrupted(
            f"Stopped. {totals.answers - before} answers of this call are kept in the ledger; "
            f"go on with: saferthoughts generate {run.name}"
        )
    return _finish(run, planned, totals.answers - before, totals.cost)


def _run(run: RunFolder, config: RunConfig, ledger: Ledger, missing: int) -> bool:
    """The pipeline itself; True where it was stopped early."""
    with muted_imports():
        from pipelines.steps import AskTeachers, SplitReplies

    def keep(pipeline_yaml: Path, parts: list[Path]) -> None:
        if ledger.fatal_error() is not None:
            return
        shutil.copyfile(pipeline_yaml, run.path / "pipeline.yaml")
        _write_tables(run, parts)

    with ExitStack() as stack:
        endpoints = _endpoints(config, stack)
        stack.enter_context(_shown(ledger, missing))

        def add_steps() -> None:
            ask = AskTeachers(name="ask", run=str(run.path), endpoints=endpoints, batch_size=BATCH)
            split = SplitReplies(name="split", run=str(run.path), input_batch_size=BATCH)
            ask >> split

        return run_pipeline(run.path, "generate", add_steps, keep)


def _endpoints(config: RunConfig, stack: ExitStack) -> dict[str, str]:
    """Base URLs by teacher; one embedded server answers for all embedded teachers, and stops with the stack."""
    embedded = ""
    if any(teacher.embedded for teacher in config.teachers.values()):
        from pipelines.rehearsal.faults import RehearsalSettings
        from pipelines.rehearsal.server import rehearsing

        embedded = stack.enter_context(rehearsing(RehearsalSettings(seed=config.seed)))
    return {name: teacher.base_url or embedded for name, teacher in config.teachers.items()}


@contextmanager
def _shown(ledger: Ledger, missing: int) -> Iterator[None]:
    """Progress read off the ledger, which every process writes to."""
    start = ledger.totals()
    ended = threading.Event()
    with meter("generate", missing, "answers") as shown:

        def poll() -> None:
            while True:
                last = ended.wait(0.5)
                now = ledger.totals()
                if now.failures:
                    shown.note(f"{now.failures} failed")
                fresh, cost = now.answers - start.answers, now.cost - start.cost
                shown.advance(fresh + now.failures - shown.done, cost - shown.cost)
                if last:
                    return

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _write_tables(run: RunFolder, parts: list[Path]) -> None:
    """Distilabel's part files as the run's two tables, sorted, so that the order of completion leaves no trace."""
    casts = ", ".join(f"{field.name}::{_SQL[str(field.type)]} AS {field.name}" for field in arrow_schema(Response))
    with duckdb.connect() as db, atomic(run.table_path("responses")) as kept, atomic(run.table_path("failed")) as lost:
        rows = db.read_parquet([str(part) for part in parts])
        db.register("rows", rows)
        query = f"SELECT {casts} FROM rows WHERE response_id <> '' AND error = '' ORDER BY response_id"  # noqa: S608
        db.sql(query).write_parquet(str(kept), compression="zstd")
        query = f"SELECT {casts}, error FROM rows WHERE response_id <> '' AND error <> '' ORDER BY response_id"  # noqa: S608
        db.sql(query).write_parquet(str(lost), compression="zstd")


_SQL = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}


def _finish(run: RunFolder, planned: int, asked: int, cost: float) -> Generated:
    kept = run.read("responses").num_rows
    failed = run.read("failed")
    if kept + failed.num_rows != planned:
        raise RuntimeError(f"{planned} responses were planned, {kept} kept and {failed.num_rows} failed")
    first = str(failed["error"][0]) if failed.num_rows else ""
    result = Generated(planned, kept, failed.num_rows, asked, cost, first)
    run.record(
        "generate",
        inputs={"prompts.parquet": file_hash(run.table_path("prompts"))},
        outputs={name: file_hash(run.path / name) for name in ("responses.parquet", "failed.parquet")},
        counts={"planned": planned, "kept": kept, "failed": failed.num_rows, "asked": asked},
        cost_usd=cost,
    )
    return result
