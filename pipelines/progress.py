"""Progress reporting: a rich bar with counts, rate, cost and time left; plain lines where output is piped.

Where the environment variable SAFERTHOUGHTS_PROGRESS names a file, the same figures are written there as JSON, at most
twice a second, for a process that watches this one (`service/run/run_reader.py`).
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from pipelines.fitted_tables import UNLIMITED, fitted, is_of_text

# Progress goes to stderr so that a stage's result on stdout can be piped.


def plain_console(**options: Any) -> Console:
    """A console that prints texts as they are, those of tables too: brackets are no markup, `:name:` is no emoji.

    Every console is made here. `options` are further ones of rich's Console.
    """
    return _PlainConsole(markup=False, highlight=False, emoji=False, **options)


class _PlainConsole(Console):
    """A console as wide as it needs where no terminal and no COLUMNS limits it, with tables that fit."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        found = super().size
        limited = self.is_terminal or self.is_jupyter or self._width is not None or "COLUMNS" in os.environ
        return found if limited else ConsoleDimensions(UNLIMITED, found.height)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        if isinstance(renderable, Table) and is_of_text(renderable):
            renderable = fitted(renderable, self, options or self.options)
        yield from super().render(renderable, options)


console = plain_console(stderr=True)
# Plain lines: the first after 5 s, the next ones further and further apart; a count is repeated only after a minute.
_PLAIN_FIRST_S, _PLAIN_MOST_S = 5.0, 60.0
FILE_VARIABLE = "SAFERTHOUGHTS_PROGRESS"
_FILE_EVERY_S = 0.5
_unseen = ContextVar("unseen", default=False)


@contextmanager
def unseen() -> Iterator[None]:
    """A block whose meters show nothing, as a part of other work that has one of its own; errors show all the same."""
    token = _unseen.set(True)
    try:
        yield
    finally:
        _unseen.reset(token)


class Meter:
    """What a stage holds while it works: `advance` counts done units, `note` sets the words beside the bar."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.cost = 0.0
        self.words = ""
        self._started = time.monotonic()
        self._printed_at = self._started
        self._printed = 0
        self._every_s = _PLAIN_FIRST_S
        named = os.environ.get(FILE_VARIABLE)
        self._file = Path(named) if named else None
        self._written = self._started
        self.write()

    def advance(self, count: int = 1, cost: float = 0.0) -> None:
        """Count `count` more units done, at `cost` US dollars together."""
        self.done += count
        self.cost += cost
        self._show()
        self._write_now_and_then()

    def note(self, words: str) -> None:
        """Words beside the bar: a loss, a count of failures."""
        self.words = words
        self._show()
        self._write_now_and_then()

    def say(self, text: str) -> None:
        """A line above the bar: an error as it happens."""
        # A terminal that was closed is no reason to stop.
        with suppress(OSError):
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    def status(self) -> str:
        """Rate, cost and words, as shown beside the counts."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        parts = [f"{self.done / seconds:.1f} {self.unit}/s"]
        if self.cost:
            parts.append(f"${self.cost:.2f}")
        if self.words:
            parts.append(self.words)
        return ", ".join(parts)

    def left_s(self) -> float | None:
        """Seconds that the rest takes at the rate so far; None where that is not known."""
        if not (self.total and self.done):
            return None
        return (self.total - self.done) * (time.monotonic() - self._started) / self.done

    def figures(self) -> dict[str, Any]:
        """What is shown, as values: counts in units, rate in units a second, cost in US dollars, times in seconds."""
        return {
            "stage": self.label,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "rate": self.done / max(time.monotonic() - self._started, 1e-9),
            "cost": self.cost,
            "left_s": self.left_s(),
            "words": self.words,
            "process": os.getpid(),
            "at": time.time(),
        }

    def write(self) -> None:
        """Put the figures into the file that the environment names, if it names one."""
        if self._file is None:
            return
        self._written = time.monotonic()
        temporary = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        # Work that cannot be watched, since its folder is full or gone, is work all the same.
        with suppress(OSError):
            temporary.write_text(json.dumps(self.figures()), encoding="utf-8")
            temporary.replace(self._file)

    def _write_now_and_then(self) -> None:
        if self._file is not None and time.monotonic() - self._written >= _FILE_EVERY_S:
            self.write()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._printed_at < (_PLAIN_MOST_S if self.done == self._printed else self._every_s):
            return
        self._printed_at, self._printed = now, self.done
        self._every_s = min(2 * self._every_s, _PLAIN_MOST_S)
        seconds = self.left_s()
        left = "" if seconds is None else f", {seconds:.0f} s left"
        of = f"/{self.total}" if self.total else ""
        console.print(
            f"{self.label}: {self.done}{of} {self.unit}, {self.status()}{left}", highlight=False, markup=False
        )


class _UnseenMeter(Meter):
    def _show(self) -> None:
        pass

    def write(self) -> None:
        """Leave the file to the meter of the whole."""


class _RichMeter(Meter):
    def __init__(self, label: str, total: int | None, unit: str, progress: Progress) -> None:
        super().__init__(label, total, unit)
        self._progress = progress
        self._task = progress.add_task(label, total=total, status="")

    def _show(self) -> None:
        self._progress.update(self._task, completed=self.done, total=self.total, status=self.status())


def _redraws() -> bool:
    """Whether a bar can be redrawn: on a terminal, and in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def meter(label: str, total: int | None = None, unit: str = "rows") -> Iterator[Meter]:
    """Show a stage's work while the block runs: a live bar where one can be redrawn, else lines that grow apart."""
    if _unseen.get():
        yield _UnseenMeter(label, total, unit)
        return
    if not _redraws():
        plain = Meter(label, total, unit)
        yield plain
        plain.write()
        of = f"/{plain.total}" if plain.total else ""
        console.print(f"{label}: {plain.done}{of} {unit}, {plain.status()}, done", highlight=False, markup=False)
        return
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[status]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        shown = _RichMeter(label, total, unit, progress)
        yield shown
        shown.total = shown.done if total is None else total
        shown._show()
        shown.write()
