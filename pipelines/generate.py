"""Prompts to responses: the Distilabel pipeline that asks the teachers.

Reads run.yaml and prompts.parquet; writes ledger.sqlite, responses.parquet and failed.parquet. Run it with
`saferthoughts generate RUN`; running it again asks only for what the ledger does not hold.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipelines.config import RunConfig, load_config
from pipelines.engine import LOCAL, STOP_FILE, Engine, muted_imports, run_pipeline
from pipelines.errors import Incomplete, Interrupted, UserError
from pipelines.estimate import Estimate, survey
from pipelines.ledger import Ledger
from pipelines.limits import NO_CAPS, Caps
from pipelines.open_endpoints import open_endpoints
from pipelines.plan import plan, prompts_of
from pipelines.progress import console, meter
from pipelines.records import Response, arrow_schema
from pipelines.runs import RunFolder, atomic, file_hash
from pipelines.teachers import api_key

BATCH = 200
_SQL = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}


@dataclass(frozen=True, slots=True)
class Generated:
    """What a call of `generate` did: planned = kept + failed; `asked` requests were new."""

    planned: int
    kept: int
    failed: int
    asked: int
    cost: float
    first_error: str


def generate(run: RunFolder, budget: Caps = NO_CAPS, reuse: tuple[Path, ...] = (), engine: Engine = LOCAL) -> Generated:
    """Ask for every response of the run's plan that is not in its ledger, and write the tables.

    Args:
        run: A run with its configuration and prompts.
        budget: Caps; at a cap the call ends, and a call with a higher one goes on.
        reuse: Ledgers of other runs, whose answers to the same requests are taken over and cost nothing.
        engine: Where the pipeline runs; the rows are the same.

    Raises:
        UserError: a key is missing, a teacher refuses every request, nothing is planned, or no Ray cluster is there.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    config = load_config(run)
    _check(run, config, budget)
    ledger = Ledger(run.path / "ledger.sqlite")
    ledger.forget_failures()
    for other in reuse:
        ledger.borrow(other)
    found = survey(run, config, ledger)
    before = ledger.totals().answers
    if found.planned == 0:
        raise UserError(f"{run.path} has nothing to generate: no prompts, or no variants. Look at its run.yaml.")
    if found.missing:
        console.print(found.told(), highlight=False, markup=False, soft_wrap=True)
    _run_batches(run, config, ledger, found)
    stopped = _run(run, config, ledger, found, budget, engine)
    fatal, reason = ledger.fatal_error(), ledger.note("stopped")
    totals = ledger.totals()
    ledger.close()
    asked = totals.answers - before
    again = f"saferthoughts generate {run.name}"
    if fatal:
        raise UserError(f"Stopped, since every request would fail: {fatal}")
    if stopped:
        raise Interrupted(f"Stopped. {asked} answers of this call are kept in the ledger; go on with: {again}")
    if reason == "budget":
        spent = f"${totals.cost:.2f} and {totals.input_tokens + totals.output_tokens} tokens"
        raise Incomplete(
            f"Stopped at the budget, with {spent} spent and {found.missing - asked} answers missing. What came back is "
            f"kept; go on with a higher cap: {again} {budget.doubled()}"
        )
    return _finish(run, found.planned, asked, totals.cost)


def _check(run: RunFolder, config: RunConfig, budget: Caps) -> None:
    for name, teacher in config.teachers.items():
        api_key(name, teacher)
        if teacher.transport == "batch" and budget != NO_CAPS:
            raise UserError(f"Teacher '{name}' answers in batches, which no cap can stop. Leave --max-... out.")
        if budget.max_cost is not None and teacher.price is None and not teacher.embedded:
            raise UserError(
                f"--max-cost needs prices, and teacher '{name}' has none. Give it one "
                f"(--set teachers.{name}.price='{{input: 0.5, output: 2}}', US dollars per million tokens) or cap "
                "tokens with --max-tokens."
            )


def _run_batches(run: RunFolder, config: RunConfig, ledger: Ledger, found: Estimate) -> None:
    """Have the Batch API answer what its teachers are still asked for; the pipeline then finds it in the ledger."""
    for name in found.asked:
        teacher = config.teachers[name]
        if teacher.transport == "batch" and ledger.fatal_error() is None:
            from pipelines.batch import run_batches

            asks = plan(config, prompts_of(run), teacher=name)
            run_batches(run, name, teacher, teacher.urls[0], asks, ledger, (run.path / STOP_FILE).exists)


def _run(run: RunFolder, config: RunConfig, ledger: Ledger, found: Estimate, budget: Caps, engine: Engine) -> bool:
    """The pipeline itself; True where it was stopped early."""
    with muted_imports():
        from pipelines.steps import AskTeachers, SplitReplies

    def keep(pipeline_yaml: Path, parts: list[Path]) -> None:
        # Tables are whole or as they were: a stage that follows must not take a part for all.
        if ledger.fatal_error() is None and ledger.note("stopped") is None:
            shutil.copyfile(pipeline_yaml, run.path / "pipeline.yaml")
            # Repair's attempts are not of this stage; repairing again takes them from the ledger.
            run.table_path("repairs").unlink(missing_ok=True)
            _write_tables(run, parts)

    with ExitStack() as stack:
        endpoints = open_endpoints(run, config.teachers, found.asked, config.seed, stack)
        # Absolute: workers of Ray's have a working directory of their own.
        folder = str(run.path.absolute())
        asked = {
            "run": folder,
            "endpoints": endpoints,
            "max_cost": budget.max_cost,
            "max_tokens": budget.max_tokens,
        }

        def add_steps() -> None:
            ask = AskTeachers(name="ask", batch_size=BATCH, **asked)
            split = SplitReplies(name="split", run=folder, input_batch_size=BATCH)
            ask >> split

        if engine.name == "ray":
            return _run_on_ray(run, config, engine, asked, keep, lambda: stack.enter_context(_shown(ledger, found)))
        stack.enter_context(_shown(ledger, found))
        return run_pipeline(run.path, "generate", add_steps, keep)


def _run_on_ray(
    run: RunFolder,
    config: RunConfig,
    engine: Engine,
    asked: dict[str, Any],
    keep: Callable[[Path, list[Path]], None],
    show: Callable[[], object],
) -> bool:
    from pipelines.ray_cluster import connected

    keys = [teacher.api_key_env for teacher in config.teachers.values() if teacher.api_key_env]
    text = (run.path / "run.yaml").read_text(encoding="utf-8")
    with connected(engine.ray_address, run.path) as nodes:
        with muted_imports():
            from pipelines import ray_engine
        # Not before: what is told of the cluster would fall into the progress display.
        show()
        kind = ray_engine.placed_on(nodes, {name: os.environ[name] for name in keys})
        return run_pipeline(
            run.path, "generate", lambda: ray_engine.add_steps(asked, text, BATCH), keep, pipeline_class=kind
        )


@contextmanager
def _shown(ledger: Ledger, found: Estimate) -> Iterator[None]:
    """Progress read off the ledger, which every process writes to."""
    start = ledger.totals()
    ended = threading.Event()
    with meter("generate", found.missing, "answers") as shown:

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
    with (
        duckdb.connect() as db,
        atomic(run.table_path("responses")) as kept,
        atomic(run.table_path("failed")) as lost,
    ):
        # Beyond it, sorting spills to disk.
        db.execute("SET memory_limit = '512MB'")
        db.read_parquet([str(part) for part in parts]).create_view("rows")
        query = f"SELECT {casts} FROM rows WHERE response_id <> '' AND error = '' ORDER BY response_id"  # noqa: S608
        db.sql(query).write_parquet(str(kept), compression="zstd")
        query = f"SELECT {casts}, error FROM rows WHERE response_id <> '' AND error <> '' ORDER BY response_id"  # noqa: S608
        db.sql(query).write_parquet(str(lost), compression="zstd")


def _finish(run: RunFolder, planned: int, asked: int, cost: float) -> Generated:
    with run.opened("responses") as file:
        kept = int(file.metadata.num_rows)
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
