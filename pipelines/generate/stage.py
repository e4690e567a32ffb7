"""Prompts to responses: the Distilabel pipeline that asks the teachers.

Reads run.yaml and prompts.parquet; writes ledger.sqlite, responses.parquet and failed.parquet. Run it with
`saferthoughts generate RUN`; running it again asks only for what the ledger does not hold.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipelines.errors import UserError
from pipelines.generate.distilabel_engine import LOCAL, Engine, muted_imports, run_pipeline
from pipelines.generate.plan import plan, prompts_of
from pipelines.progress import console
from pipelines.records import Response, arrow_schema
from pipelines.runner.estimate import Estimate, survey
from pipelines.runner.failures import Failure, Failures, count
from pipelines.runner.outcomes import Ending
from pipelines.runner.preflight import check_teachers_answer
from pipelines.runner.session import check_teachers, raise_if_ended, say_damaged, shown_answers
from pipelines.runs import RunFolder, atomic, file_hash
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.launch import open_endpoints
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.limits import NO_CAPS, Caps

BATCH = 200
_SQL = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}


@dataclass(frozen=True, slots=True)
class Generated:
    """What a call of `generate` did: planned = kept + failed; `asked` requests were new."""

    planned: int
    kept: int
    failures: Failures
    asked: int
    cost: float

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return self.failures.rows


def generate(
    run: RunFolder,
    budget: Caps = NO_CAPS,
    reuse: tuple[Path, ...] = (),
    engine: Engine = LOCAL,
    no_reasoning: bool = False,
) -> Generated:
    """Ask for every response of the run's plan that is not in its ledger, and write the tables.

    Args:
        run: A run with its configuration and prompts.
        budget: Caps; at a cap the call ends, and a call with a higher one goes on.
        reuse: Ledgers of other runs, whose answers to the same requests are taken over and cost nothing.
        engine: Where the pipeline runs; the rows are the same.
        no_reasoning: Go on with a teacher that shows no reasoning where a variant wants some.

    Raises:
        UserError: a key is missing, a teacher does not answer its first question, shows no reasoning or refuses every
            request, nothing is planned, no Ray cluster is there, or nothing more can be kept.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    config = load_config(run)
    _check(config, budget)
    with ExitStack() as stack:
        ledger = Ledger(run.path / "ledger.sqlite")
        stack.callback(ledger.close)
        ledger.forget_failures()
        for other in reuse:
            ledger.borrow(other)
        aside = len(ledger.set_aside())
        found = survey(run, config, ledger)
        if found.planned == 0:
            raise UserError(f"{run.path} has nothing to generate: no prompts, or no variants. Look at its run.yaml.")
        with ExitStack() as servers:
            endpoints = open_endpoints(run, config.teachers, found.asked, config.seed, servers)
            config = check_teachers_answer(run, config, ledger, found.asked, endpoints, no_reasoning)
            # By the settings that the teachers take, and their speed.
            found = survey(run, config, ledger)
            for line in found.lines() if found.missing else ():
                console.print(line, soft_wrap=True)
            before = ledger.totals()
            ending = _run_batches(run, config, ledger, found) or _run(run, config, found, budget, engine, endpoints)
        totals = ledger.totals()
        raise_if_ended(ending, before, totals, budget, f"saferthoughts generate {run.name}")
        say_damaged(ledger, aside)
    return _finish(run, found.planned, totals.answers - before.answers, totals.cost)


def _check(config: RunConfig, budget: Caps) -> None:
    check_teachers(config.teachers, budget)
    for name, teacher in config.teachers.items():
        if teacher.transport == "batch" and budget != NO_CAPS:
            raise UserError(f"Teacher '{name}' answers in batches, which no cap can stop. Leave --max-... out.")


def _run_batches(run: RunFolder, config: RunConfig, ledger: Ledger, found: Estimate) -> Ending | None:
    """Have the Batch API answer what its teachers are still asked for; the pipeline then finds it in the ledger."""
    for name in found.asked:
        teacher = config.teachers[name]
        if teacher.transport == "batch":
            from pipelines.teachers.batch.stage import run_batches

            asks = plan(config, prompts_of(run), teacher=name)
            # A signal is raised as KeyboardInterrupt, which it turns into advice of its own.
            run_batches(run, name, teacher, teacher.urls[0], asks, ledger, lambda: False)
            if (fatal := ledger.fatal_error()) is not None:
                return Ending("fatal", fatal)
    return None


def _run(
    run: RunFolder,
    config: RunConfig,
    found: Estimate,
    budget: Caps,
    engine: Engine,
    endpoints: dict[str, list[str]],
) -> Ending | None:
    """The pipeline itself; why it ended early, if it did."""
    with muted_imports():
        from pipelines.generate.distilabel_steps import AskTeachers, SplitReplies

    def keep(pipeline_yaml: Path, parts: list[Path]) -> None:
        # Tables are whole or as they were: a stage that follows must not take a part for all.
        shutil.copyfile(pipeline_yaml, run.path / "pipeline.yaml")
        # Repair's attempts are not of this stage; repairing again takes them from the ledger.
        run.table_path("repairs").unlink(missing_ok=True)
        _write_tables(run, parts)

    with ExitStack() as stack:
        # Absolute: workers of Ray's have a working directory of their own.
        folder = str(run.path.absolute())
        asked = {
            "run": folder,
            "endpoints": endpoints,
            "max_cost": budget.max_cost,
            "max_tokens": budget.max_tokens,
        }

        def add_steps(link: str) -> None:
            ask = AskTeachers(name="ask", batch_size=BATCH, link=link, **asked)
            split = SplitReplies(name="split", run=folder, input_batch_size=BATCH)
            ask >> split

        if engine.name == "ray":
            return _run_on_ray(run, config, engine, asked, keep, found)
        hear = stack.enter_context(shown_answers("generate", found.missing, found.generation))
        return run_pipeline(run.path, "generate", add_steps, keep, hear)


def _run_on_ray(
    run: RunFolder,
    config: RunConfig,
    engine: Engine,
    asked: dict[str, Any],
    keep: Callable[[Path, list[Path]], None],
    found: Estimate,
) -> Ending | None:
    from pipelines.generate.ray_cluster import connected

    keys = [teacher.api_key_env for teacher in config.teachers.values() if teacher.api_key_env]
    text = (run.path / "run.yaml").read_text(encoding="utf-8")
    with connected(engine.ray_address, run.path) as nodes:
        with muted_imports():
            from pipelines.generate import ray_engine
        kind = ray_engine.placed_on(nodes, {name: os.environ[name] for name in keys})

        def add_steps(link: str) -> None:
            ray_engine.add_steps({**asked, "link": link}, text, BATCH)

        # Not before: what is told of the cluster would fall into the progress display.
        with shown_answers("generate", found.missing, found.generation) as hear:
            return run_pipeline(run.path, "generate", add_steps, keep, hear, pipeline_class=kind)


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
        casts += ", error, permanent::BOOLEAN AS permanent"
        query = f"SELECT {casts} FROM rows WHERE response_id <> '' AND error <> '' ORDER BY response_id"  # noqa: S608
        db.sql(query).write_parquet(str(lost), compression="zstd")


def _finish(run: RunFolder, planned: int, asked: int, cost: float) -> Generated:
    with run.opened("responses") as file:
        kept = int(file.metadata.num_rows)
    failed = run.read("failed")
    if kept + failed.num_rows != planned:
        raise RuntimeError(f"{planned} responses were planned, {kept} kept and {failed.num_rows} failed")
    failures = count(Failure(str(row["error"]), row["permanent"]) for row in failed.to_pylist())
    result = Generated(planned, kept, failures, asked, cost)
    run.record(
        "generate",
        inputs={"prompts.parquet": file_hash(run.table_path("prompts"))},
        outputs={name: file_hash(run.path / name) for name in ("responses.parquet", "failed.parquet")},
        counts={"planned": planned, "kept": kept, "failed": failed.num_rows, "asked": asked},
        failures=failures.record(),
        cost_usd=cost,
    )
    return result
