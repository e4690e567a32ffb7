"""The state that every request shares: runs, tokens, queue, teachers and prompt sets."""

import ipaddress
import os
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.errors import UserError, one_line, unknown
from pipelines.file_marks import KeptWhileUnchanged, mark_of
from pipelines.prompts.prompt_files import load_pool
from pipelines.row_files import READERS
from pipelines.runs import RUN_NAME, RunFolder
from pipelines.settings.teacher import Teacher, load_teachers
from service.http.problems import Problem
from service.http.shapes import RunState
from service.http.tokens import Tokens
from service.jobs.jobs import Supervisor
from service.jobs.keys import SessionKeys
from service.jobs.queue import Job, Queue
from service.review.argilla import ArgillaServer
from service.rows.indexes import RowIndexes
from service.run.run_reader import Broadcaster, RunReader, is_run
from service.store import Store

BUNDLED = "bundled"
_LONGEST_NAME = 80
# Files of text that may be uploaded, none of them packed.
UPLOADED = (".jsonl", ".csv", ".tsv", ".json", ".yaml", ".txt")
UPLOAD_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}(?:{'|'.join(map(re.escape, UPLOADED))})")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the service was started.

    `host_names` are those by which it may be called besides its own address; `secure` says that browsers reach it over
    TLS, its own or a proxy's. `teachers` is a file, `prompts`, `recipes` and `students` are folders of the user's;
    requests name what is in them.
    `most_jobs` run at once; a caller has `rate_per_s` requests for long, four times as many in a burst.
    """

    runs: Path
    host: str = "127.0.0.1"
    port: int = 8300
    host_names: tuple[str, ...] = ()
    secure: bool = False
    behind_proxy: bool = False
    teachers: Path | None = None
    prompts: Path | None = None
    recipes: Path | None = None
    students: Path | None = None
    most_jobs: int = 2
    rate_per_s: float = 100.0

    @property
    def names(self) -> frozenset[str]:
        """Every name that a request may call the service by, in small letters, without a port."""
        return frozenset(name.lower() for name in (*_LOOPBACK_NAMES, self.host, *self.host_names))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(slots=True)
class AppState:
    """The parts of a running service."""

    settings: ServeSettings
    store: Store
    tokens: Tokens
    queue: Queue
    supervisor: Supervisor
    reader: RunReader
    broadcaster: Broadcaster
    rows: RowIndexes
    keys: SessionKeys
    argilla: ArgillaServer
    # One at a time: that a name is free, and then that it is taken; and the report of a run.
    starting: threading.Lock = field(default_factory=threading.Lock)
    reporting: threading.Lock = field(default_factory=threading.Lock)
    # Held by the one child of a request: a plan or a question to a student; how a study is.
    asking: threading.Lock = field(default_factory=threading.Lock)
    looking: threading.Lock = field(default_factory=threading.Lock)
    _teachers: KeptWhileUnchanged[dict[str, Teacher]] = field(default_factory=lambda: KeptWhileUnchanged(1))

    @property
    def runs(self) -> Path:
        """The folder of run folders."""
        return self.settings.runs

    def run(self, name: str) -> RunFolder:
        """Open an existing run.

        Raises:
            Problem: 404, there is none of that name; 409, it was made by another version, or has no configuration yet.
        """
        try:
            run = RunFolder.open(self.runs, name)
        except UserError as error:
            # A name may be longer than a file's can be.
            if RUN_NAME.fullmatch(name) is None:
                raise Problem(404, f"There is no run '{one_line(name, _LONGEST_NAME)}'.") from error
            words = str(error).replace(f"{self.runs}/", f"{self.runs.name}/")
            raise Problem(409 if is_run(self.runs, name) else 404, words) from error
        if not (run.path / "run.yaml").exists():
            raise Problem(409, f"{run.path} has no run.yaml yet. Run first: saferthoughts prompts {run.name}")
        return run

    def run_state(self, name: str) -> RunState:
        """A run's state, also where its files are broken.

        Raises:
            Problem: 404 or 409, as `run` has it.
        """
        state = self.reader.look(name) if is_run(self.runs, name) else None
        if state is None or (state.state == "broken" and self._being_made(name)):
            self.run(name)
        return state or self.reader.look(name)

    def _being_made(self, name: str) -> bool:
        """Whether a run is sound, but for a configuration that has yet to be written."""
        try:
            return not (RunFolder.open(self.runs, name).path / "run.yaml").exists()
        except (UserError, OSError):
            return False

    def run_states(self, part: str, offset: int, limit: int) -> tuple[int, list[RunState]]:
        """How many runs hold a text in their names, and some of them, the newest first; those that cannot be read are
        shown as broken."""
        names = self.reader.names(part)
        found = []
        for name in names[offset : offset + limit]:
            with suppress(UserError, Problem):  # being made at this moment, or gone
                found.append(self.run_state(name))
        return len(names), found

    def put(self, run: RunFolder, action: str, arguments: Sequence[str], asked_by: str) -> Job:
        """Queue a job.

        Raises:
            Problem: 409, the run has one that is not over.
        """
        job = self.queue.put(run.name, action, arguments, asked_by)
        self.supervisor.wake()
        return job

    def known_teachers(self) -> dict[str, Teacher]:
        """Shipped teachers and those of the file that the service was started with, as it is now."""
        file = self.settings.teachers
        return dict(self._teachers.get(file, lambda: file and mark_of(file), lambda: load_teachers(file)))

    def prompt_sets(self) -> dict[str, str]:
        """Prompt sets by name, with what a configuration has as their source."""
        sets = {BUNDLED: BUNDLED}
        if self.settings.prompts is not None:
            for path in sorted(self.settings.prompts.iterdir()):
                if not path.name.startswith(".") and (path.is_dir() or path.suffix in READERS):
                    sets[path.name] = str(path.absolute())
        return sets

    def add_prompts(self, name: str, content: str, kind: str | None) -> None:
        """Keep a prompt set that was uploaded, after reading it whole.

        Raises:
            UserError: there is no folder for it, the name is none or taken, or a row cannot be used; nothing is kept.
        """
        folder = self.settings.prompts
        if folder is None:
            raise UserError("There is no folder for prompt sets. Start the service with one: --prompts FOLDER")
        if UPLOAD_NAME.fullmatch(name) is None:
            raise UserError(
                f"'{one_line(name, _LONGEST_NAME)}' is no name for a prompt set: letters, digits, dots and dashes, at "
                f"most 64, ending in {', '.join(UPLOADED)}."
            )
        if name in self.prompt_sets():
            raise UserError(f"There is a prompt set '{name}' already. Give the new one another name.")
        with TemporaryDirectory(prefix=".upload-", dir=folder) as temporary:
            file = Path(temporary) / name
            file.write_text(content, encoding="utf-8")
            try:
                load_pool(file, kind)
            except UserError as error:
                raise UserError(str(error).replace(str(file), name)) from error
            try:
                os.link(file, folder / name)  # never over another
            except FileExistsError as error:
                raise UserError(f"There is a prompt set '{name}' already. Give the new one another name.") from error

    def prompt_source(self, name: str) -> str:
        """The source of a prompt set by its name.

        Raises:
            UserError: there is none of that name.
        """
        sets = self.prompt_sets()
        if name not in sets:
            raise unknown("prompt set", name, sets)
        return sets[name]


def opened(settings: ServeSettings, environment: dict[str, str]) -> AppState:
    """Create the service's parts; nothing is started yet."""
    store = Store(settings.runs)
    queue = Queue(store)
    reader = RunReader(settings.runs, queue)
    keys = SessionKeys()
    return AppState(
        settings=settings,
        store=store,
        tokens=Tokens(store),
        queue=queue,
        supervisor=Supervisor(settings.runs, queue, settings.most_jobs, environment, keys.values),
        reader=reader,
        broadcaster=Broadcaster(reader.look),
        rows=RowIndexes(),
        keys=keys,
        argilla=ArgillaServer(settings.runs),
    )
