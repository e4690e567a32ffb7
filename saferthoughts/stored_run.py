"""A run as it is stored: made, opened, changed, and its tables.

Reads and writes the run's folder as `pipelines/runs.py` has it. `saferthoughts/run.py` has the stages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from pipelines.errors import UserError, unknown
from pipelines.prompts.stage import PromptsResult, start, start_or_change
from pipelines.runs import WRITTEN_BY, RunFolder
from pipelines.settings.changes import change
from pipelines.settings.config import RunConfig, load_config
from saferthoughts.settings import (
    Agreement,
    Assignments,
    RunSettings,
    StoredPath,
    TeacherSettings,
    consent_of,
    run_options,
    runs_folder,
)
from saferthoughts.tables import Table

if TYPE_CHECKING:
    from saferthoughts.costs import CostLine
    from saferthoughts.ledgers import Pruning, Spending
    from saferthoughts.review import Review
    from saferthoughts.status import RunStatus


class StoredRun:
    """What of a run needs no stage: its folder, its configuration and its tables.

    Attributes:
        folder: The run's folder, for its files.
        prompts: How many prompts were drawn, where this call drew them.
    """

    def __init__(self, folder: RunFolder, prompts: PromptsResult | None = None) -> None:
        self.folder, self.prompts = folder, prompts

    @classmethod
    def create(
        cls, name: str, *, runs: StoredPath | None = None, agree: Agreement = False, **settings: Unpack[RunSettings]
    ) -> Self:
        """Start a run, or change one that exists by what is named; prompts that can be kept stay.

        Args:
            name: The run's name.
            runs: The folder of run folders: that of SAFERTHOUGHTS_RUNS, or runs/ here, if not given.
            agree: Agree to a change that loses prompts or answers or replaces a teacher.
            settings: What the run is made of; see `RunSettings`.

        Raises:
            UserError: settings that do not fit, prompts that cannot be read, or no consent to what would be lost.
        """
        started = start_or_change(runs_folder(runs), name, run_options(**settings), consent_of(agree))
        return cls(started.run, started)

    @classmethod
    def from_config(cls, name: str, config: RunConfig, *, runs: StoredPath | None = None) -> Self:
        """Start a run with a resolved configuration.

        Raises:
            UserError: prompts that cannot be read, or a run of that name that would lose something.
        """
        started = start(runs_folder(runs), name, config)
        return cls(started.run, started)

    @classmethod
    def from_dataset(
        cls,
        name: str,
        dataset: StoredPath,
        *,
        columns: Mapping[str, str] | None = None,
        kind: str | None = None,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        variant: str = "direct",
        runs: StoredPath | None = None,
    ) -> Self:
        """Make a run from rows that were not generated here, to judge and check them.

        Args:
            name: The run's name.
            dataset: A file, a folder, or OWNER/NAME on the Hub; a release of ours is taken whole.
            columns: Field to column, for columns of other names.
            kind: "harmful" or "benign", for rows that do not say.
            config: The configuration to read.
            split: The split to read.
            revision: A tag or commit on the Hub.
            variant: Whose shape the rows are checked for, where they do not say.
            runs: The folder of run folders.

        Raises:
            UserError: nothing can be read there, or no row has a prompt and a response.
        """
        from curation.datasets.imported import import_dataset
        from pipelines.settings.old_names import typed_name
        from pipelines.sources import Source

        source = Source(hub=str(dataset), config=config, split=split, revision=revision)
        return cls(import_dataset(runs_folder(runs), name, source, columns or {}, kind, typed_name(variant)))

    @classmethod
    def open(cls, name: str, *, runs: StoredPath | None = None) -> Self:
        """Open a run that exists.

        Raises:
            UserError: there is none of that name; the choices are listed.
        """
        return cls(RunFolder.open(runs_folder(runs), name))

    @classmethod
    def from_archive(
        cls,
        file: StoredPath,
        name: str | None = None,
        *,
        teachers: StoredPath | None = None,
        runs: StoredPath | None = None,
        agree: Agreement = False,
    ) -> Self:
        """Make a run of an archive of `export`.

        Args:
            file: The archive; one that is no run's is refused whole.
            name: The run's name, the archive's if not given.
            teachers: A teachers.yaml of your own, whose entries the run may ask.
            runs: The folder of run folders.
            agree: Take it although it would ask others than these, or has instructions or checks of its own.

        Raises:
            UserError: this is no archive of a sound run, its name is taken, or there is no consent.
        """
        from pipelines.run_archives import imported
        from pipelines.settings.teacher import load_teachers

        known = load_teachers(None if teachers is None else Path(teachers))
        if not Path(file).is_file():
            raise UserError(f"There is no file {file}. Give an archive of `saferthoughts runs export`.")
        with Path(file).open("rb") as archive:
            return cls(imported(runs_folder(runs), archive, name, known, consent_of(agree, _refuse_archive)))

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def config(self) -> RunConfig:
        """The run's configuration, as run.yaml has it."""
        return load_config(self.folder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def change(
        self,
        *,
        settings: Assignments | None = None,
        teachers: StoredPath | None = None,
        agree: Agreement = False,
        also: Mapping[str, Any] | None = None,
        **who: Unpack[TeacherSettings],
    ) -> RunConfig:
        """Change run.yaml, and nothing else; the prompts stay.

        Args:
            settings: Any keys of run.yaml, dotted.
            teachers: A teachers.yaml of your own.
            agree: Change it although answers of the run would go, or a teacher.
            also: Further keys with their values, which `settings` wins over; None leaves a key as it is.
            who: Another teacher; see `TeacherSettings`.

        Raises:
            UserError: a value that does not fit, one that draws other prompts, or no consent to what would be lost.
        """
        options = run_options(settings=settings, teachers=teachers, also=also, **who)
        return change(self.folder, options, consent_of(agree))

    def review(self, *, workspace: str | None = None) -> "Review":
        """People's votes on the run's rows, in Argilla.

        Args:
            workspace: On a server of your own, the workspace to work in.
        """
        from saferthoughts.review import Review

        return Review(self.folder, workspace)

    def rename(self, name: str) -> None:
        """Give the run another name; what names it elsewhere, such as a study, goes on looking for the old one.

        Raises:
            UserError: the name is none, or taken, or a process is at work on the run.
        """
        from pipelines.run_archives import rename

        self.folder = rename(self.folder, name)

    def remove(self) -> None:
        """Delete the run with all that it holds.

        Raises:
            UserError: a process is at work on it.
        """
        from pipelines.run_archives import remove

        remove(self.folder)

    def export(self, file: StoredPath) -> Path:
        """Write the run as one zip file: settings, answers, tables and release; where it is.

        Raises:
            UserError: a process is at work on the run, or a file of it is a link.
        """
        from pipelines.files import atomic
        from pipelines.run_archives import exported

        with atomic(Path(file)) as temporary, temporary.open("wb") as target:
            for piece in exported(self.folder):
                target.write(piece)
        return Path(file)

    def status(self) -> "RunStatus":
        """What the run has, what it waits for, what it took, and the command that goes on."""
        from saferthoughts.status import status

        return status(self.name, runs=self.path.parent)[0]

    def spending(self) -> "Spending":
        """What was asked: answers, tokens, US dollars and time by model, and what failed.

        Raises:
            UserError: there is no ledger yet, or it is broken.
        """
        from saferthoughts.ledgers import spending

        return spending(self.folder)

    def costs(self) -> "list[CostLine]":
        """What this run itself paid for, by day, teacher or judge, and model.

        Raises:
            UserError: its ledger or configuration cannot be read.
        """
        from saferthoughts.costs import run_costs

        return run_costs(self.folder)

    def export_answers(self, file: StoredPath) -> int:
        """Write every answer to a .jsonl or .parquet file; how many there are.

        Raises:
            UserError: another ending, or no ledger.
        """
        from saferthoughts.ledgers import export_ledger

        return export_ledger(self.folder, Path(file))

    def prune(self, *, dry_run: bool = False) -> "Pruning":
        """Delete answers that the run's present prompts and configuration do not ask for, or only count them.

        Raises:
            UserError: no ledger, no prompts or no configuration.
        """
        from saferthoughts.ledgers import prune_ledger

        return prune_ledger(self.folder, dry_run)

    def forget_refusals(self) -> int:
        """Let requests that a teacher refused for good be asked once more; how many they are.

        Raises:
            UserError: no ledger.
        """
        from saferthoughts.ledgers import forget_refusals

        return forget_refusals(self.folder)

    def table(self, name: str) -> Table:
        """A table of the run: prompts, responses, failed, judgements, verdicts, repairs, accepted, rejected, ...

        Raises:
            UserError: there is no table of that name, or it is missing, with the stage that writes it.
        """
        if name not in WRITTEN_BY:
            raise unknown("table", name, WRITTEN_BY)
        return Table(self.folder.read(name))

    def sql(self, query: str) -> Table:
        """One SELECT over the run's tables, a .sql file with one, or patterns, filters or lengths.

        Raises:
            UserError: it is not one statement that reads, or does not run.
        """
        from curation.sql.query import query as ask

        return Table(ask(self.folder, query))


def _refuse_archive(asks: str) -> None:
    raise UserError(f"{asks} Nothing was taken from it. Agree to that with agree=True, or --yes.")
