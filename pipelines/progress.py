"""How long work shows itself: a rich bar with counts, rate, cost and time left; plain lines when not a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

# Progress goes to stderr so that a stage's result on stdout can be piped.
console = Console(stderr=True)
_PLAIN_EVERY_S = 5.0


class Meter:
    """What a stage holds while it works: `advance` counts done units, `note` sets the words beside the bar."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.cost = 0.0
        self.words = ""
        self._started = time.monotonic()
        self._told = self._started

    def advance(self, count: int = 1, cost: float = 0.0) -> None:
        """Count `count` more units done, at `cost` US dollars together."""
        self.done += count
        self.cost += cost
        self._show()

    def note(self, words: str) -> None:
        """Words beside the bar: a loss, a count of failures."""
        self.words = words
        self._show()

    def status(self) -> str:
        """Rate, cost and words, as shown beside the counts."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        parts = [f"{self.done / seconds:.1f} {self.unit}/s"]
        if self.cost:
            parts.append(f"${self.cost:.2f}")
        if self.words:
            parts.append(self.words)
        return ", ".join(parts)

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._told < _PLAIN_EVERY_S:
            return
        self._told = now
        left = ""
        if self.total and self.done:
            left = f", {(self.total - self.done) * (now - self._started) / self.done:.0f} s left"
        of = f"/{self.total}" if self.total else ""
        console.print(
            f"{self.label}: {self.done}{of} {self.unit}, {self.status()}{left}", highlight=False, markup=False
        )


class _RichMeter(Meter):
    def __init__(self, label: str, total: int | None, unit: str, progress: Progress) -> None:
        super().__init__(label, total, unit)
        self._progress = progress
        self._task = progress.add_task(label, total=total, status="")

    def _show(self) -> None:
        self._progress.update(self._task, completed=self.done, total=self.total, status=self.status())


@contextmanager
def meter(label: str, total: int | None = None, unit: str = "rows") -> Iterator[Meter]:
    """Show a stage's work while the block runs; on a terminal a live bar, elsewhere a line every few seconds."""
    if not console.is_terminal:
        plain = Meter(label, total, unit)
        yield plain
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
