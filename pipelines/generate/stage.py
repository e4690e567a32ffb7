"""Prompts to responses: the stage that asks the teachers, by the Distilabel pipeline of `planned_responses.py`.

Reads run.yaml and prompts.parquet; writes ledger.sqlite, responses.parquet, failed.parquet and pipeline.yaml. Run it
with `saferthoughts generate RUN`; running it again asks only for what the ledger does not hold.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.files import temporary_beside
from pipelines.generate.plan import plan, prompts_of
from pipelines.generate.responses import responses
from pipelines.progress import console
from pipelines.records import Response, arrow_schema
from pipelines.runner.estimate import Estimate, estimated, survey
from pipelines.runner.failures import Failure, Failures, count
from pipelines.runner.options import DEFAULTS, NO_CAPS, Caps, RequestOptions
from pipelines.runner.outcomes import Control, Ending
from pipelines.runner.preflight import check_teachers_answer
from pipelines.runner.scheduler import unusable
from pipelines.runner.session import at_work, check_teachers, clients_of, raise_if_ended, say_damaged, shown_answers
from pipelines.runner.stop import signals_end
from pipelines.runs import RunFolder, atomic, file_hash
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.launch import open_endpoints
from pipelines.teachers.ledger import Ledger

_ENDED = [pa.field("error", pa.string(), nullable=False), pa.field("permanent", pa.bool_(), nullable=False)]
_ROWS = pa.schema([*arrow_schema(Response), *_ENDED])


@dataclass(frozen=True, slots=True)
class GenerationResult:
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


def generate(run: RunFolder, options: RequestOptions = DEFAULTS) -> GenerationResult:
    """Ask for every response of the run's plan that is not in its ledger, and write the tables.

    Raises:
        UserError: a key is missing, a teacher does not answer its first question, shows no reasoning or refuses every
            request, nothing is planned, no Ray cluster is there, or nothing more can be kept.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    config = load_config(run)
    _check(config, options.caps)
    with ExitStack() as stack:
        ledger = Ledger(run.path / "ledger.sqlite")
        stack.callback(ledger.close)
        ledger.forget_failures()
        for other in options.reuse:
            ledger.borrow(other)
        aside = len(ledger.set_aside())
        found = survey(run, config, ledger)
        if found.planned == 0:
            raise UserError(f"{run.path} has nothing to generate: no prompts, or no variants. Look at its run.yaml.")
        with ExitStack() as servers:
            endpoints = open_endpoints(run, config.teachers, found.asked, config.seed, servers)
            taken = check_teachers_answer(
                run, config, ledger, found.asked, found.kinds, endpoints, options.allow_no_reasoning
            )
            # By the settings that the teachers take, and their speed.
            if taken is config:
                found = estimated(config, ledger, found.planned, found.kinds)
            else:
                config, found = taken, survey(run, taken, ledger)
            for line in found.lines() if found.missing else ():
                console.print(line, soft_wrap=True)
            before = ledger.totals()
            stack.enter_context(at_work(run, "generate"))
            ending = _run_batches(run, config, ledger, found) or _run(run, config, found, options, endpoints)
        totals = ledger.totals()
        raise_if_ended(ending, before, totals, options.caps, f"saferthoughts generate {run.name}")
        say_damaged(ledger, aside)
    return _finish(run, found.planned, totals.answers - before.answers, totals.cost)


def _check(config: RunConfig, caps: Caps) -> None:
    check_teachers(config.teachers, caps)
    for name, teacher in config.teachers.items():
        if teacher.transport == "batch" and caps != NO_CAPS:
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
    run: RunFolder, config: RunConfig, found: Estimate, options: RequestOptions, endpoints: dict[str, list[str]]
) -> Ending | None:
    """Drive the pipeline's step, and write the tables; why it ended early, if it did, and then nothing is written: a
    stage that follows must not take a part for all."""
    from pipelines.generate.planned_responses import generation_pipeline

    pipeline, step = generation_pipeline(run, config)
    control = Control()
    with temporary_beside(run.path / "unsorted.parquet") as rows:
        with ExitStack() as stack:
            client = stack.enter_context(clients_of(options.engine, run))
            # Not before: what is said of a cluster would fall into the progress display.
            shown = stack.enter_context(shown_answers("generate", found.missing, found.generation))
            stack.enter_context(signals_end(control))
            writer = stack.enter_context(pq.ParquetWriter(rows, _ROWS))
            try:
                for batch in step.drive(lambda: responses(run, config, endpoints, options, control, shown, client)):
                    writer.write_table(pa.Table.from_pylist(batch, schema=_ROWS))
            except Exception as error:
                if (broken := unusable(error)) is None:
                    raise
                control.end(Ending("broken", broken))
        if control.ending is None:
            with atomic(run.path / "pipeline.yaml") as saved:
                pipeline.save(saved, format="yaml")
            # Repair's attempts are not of this stage; repairing again takes them from the ledger.
            run.table_path("repairs").unlink(missing_ok=True)
            _write_tables(run, rows)
    return control.ending


def _write_tables(run: RunFolder, rows: Path) -> None:
    """The run's two tables, sorted, so that the order of completion leaves no trace."""
    kept = ", ".join(arrow_schema(Response).names)
    with (
        duckdb.connect() as db,
        atomic(run.table_path("responses")) as responses_file,
        atomic(run.table_path("failed")) as failed_file,
    ):
        # Beyond it, sorting spills to disk.
        db.execute("SET memory_limit = '512MB'")
        found = db.read_parquet(str(rows))
        found.filter("error = ''").project(kept).order("response_id").write_parquet(
            str(responses_file), compression="zstd"
        )
        found.filter("error <> ''").order("response_id").write_parquet(str(failed_file), compression="zstd")


def _finish(run: RunFolder, planned: int, asked: int, cost: float) -> GenerationResult:
    with run.opened("responses") as file:
        kept = int(file.metadata.num_rows)
    failed = run.read("failed")
    if kept + failed.num_rows != planned:
        raise RuntimeError(f"{planned} responses were planned, {kept} kept and {failed.num_rows} failed")
    failures = count(Failure(str(row["error"]), row["permanent"]) for row in failed.to_pylist())
    result = GenerationResult(planned, kept, failures, asked, cost)
    run.record(
        "generate",
        inputs={"prompts.parquet": file_hash(run.table_path("prompts"))},
        outputs={name: file_hash(run.path / name) for name in ("responses.parquet", "failed.parquet")},
        counts={"planned": planned, "kept": kept, "failed": failed.num_rows, "asked": asked},
        failures=failures.record(),
        cost_usd=cost,
    )
    return result
