"""`PlannedResponses`: all responses of a run as a streaming step of Distilabel's, and the pipeline that has it.

`generate` drives the step itself, in its own process: under Distilabel's scheduler it would take seconds more, and a
failed step, a full disk or Ctrl-C could hang it. The pipeline that is saved with a run works there as well:
`distilabel pipeline run --config pipeline.yaml --ignore-cache`, in a folder that holds the run. Importing this module
imports distilabel, which takes a second.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from pipelines.generate.imports import muted_imports
from pipelines.generate.responses import COLUMNS, responses
from pipelines.records import content_id
from pipelines.runner.options import Caps, RequestOptions
from pipelines.runner.outcomes import Control
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.launch import open_endpoints

with muted_imports():
    from distilabel.mixins.runtime_parameters import RuntimeParameter
    from distilabel.pipeline import Pipeline
    from distilabel.steps import GeneratorStep

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput

# Stands alone in the last batch when a run was stopped before anything was done; it has no response_id.
_NOTHING: dict[str, Any] = {**dict.fromkeys(COLUMNS, ""), "error": "stopped", "permanent": False}
# Enough that what describes a batch in a parquet file is little beside it.
_BATCH = 1000


class PlannedResponses(GeneratorStep):  # type: ignore[misc]
    """Asks for every planned response of a run that its ledger does not hold, and yields all as they end.

    Attributes:
        run: The run folder, with run.yaml and prompts.parquet; its ledger is written.
        plan: A hash of prompts and configuration, by which Distilabel's cache tells one run from another.
        max_cost: US dollars that the run may cost, all calls together.
        max_tokens: Tokens that it may take.

    Output columns:
        - those of `Response` (`str`, `int`, `float`): A planned response.
        - error (`str`): "", or what finally went wrong with it.
        - permanent (`bool`): Whether it would go wrong again.
    """

    run: RuntimeParameter[str] = Field(default=".", description="the run folder")
    plan: str = Field(default="", description="what is planned, hashed: Distilabel's cache tells runs apart by it")
    max_cost: RuntimeParameter[float] | None = Field(default=None, description="US dollars that the run may cost")
    max_tokens: RuntimeParameter[int] | None = Field(default=None, description="tokens that the run may take")

    _source: Callable[[], Iterator[dict[str, Any]]] | None = PrivateAttr(default=None)

    @property
    def outputs(self) -> list[str]:
        """The columns of its rows."""
        return COLUMNS

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        """The rows, in batches."""
        for batch, last in in_batches((self._source or self._rows)(), self.batch_size):
            yield batch or [_NOTHING], last

    def drive(self, source: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        """The rows of a source of the caller's own, for whoever drives this step without a scheduler."""
        self._source = source
        for batch, _ in self.process():
            yield [row for row in batch if row["response_id"]]

    def _rows(self) -> Iterator[dict[str, Any]]:
        run, control = RunFolder(Path(self.run)), Control()
        config = load_config(run)
        options = RequestOptions(Caps(self.max_cost, self.max_tokens))
        with ExitStack() as stack:
            endpoints = open_endpoints(run, config.teachers, tuple(config.teachers), config.seed, stack)
            yield from responses(run, config, endpoints, options, control, lambda tally, error: None)
        if control.ending is not None:
            logging.getLogger("distilabel").error("Stopped: %s %s", control.ending.kind, control.ending.text)


def in_batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Rows in batches, each with whether it is the last.

    Only the last batch can be empty, and only where nothing came: whatever follows would wait for ever.
    """
    batch: list[dict[str, Any]] = []
    for row in rows:
        if len(batch) >= size:
            yield batch, False
            batch = []
        batch.append(row)
    yield batch, True


def generation_pipeline(run: RunFolder, config: RunConfig) -> tuple[Any, PlannedResponses]:
    """The pipeline of a run's generation, and its step; the run's folder is the working folder."""
    plan = content_id(file_hash(run.table_path("prompts")), config.model_dump(mode="json"))
    with Pipeline(name="saferthoughts-generate") as pipeline:
        step = PlannedResponses(name="responses", batch_size=_BATCH, plan=plan)
    return pipeline, step
