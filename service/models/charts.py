"""Line charts drawn by the server as SVG: the points of one line, and its figures in words for who cannot see it."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 300, 90


@dataclass(frozen=True, slots=True)
class Chart:
    """One line over steps. `points` are SVG's, in a box of WIDTH by HEIGHT, a text for each unbroken stretch."""

    title: str
    points: tuple[str, ...]
    first_step: int
    last_step: int
    low: float
    high: float
    last: float

    @property
    def words(self) -> str:
        """The line in words."""
        return (
            f"{self.title}: {number(self.last)} at step {self.last_step}; lowest {number(self.low)}, highest "
            f"{number(self.high)} since step {self.first_step}"
        )


def line(title: str, steps: Sequence[int], values: Sequence[float | None]) -> Chart | None:
    """A chart, None where no step has a figure; a step without one breaks the line."""
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    if not known:
        return None
    low, high = min(value for _, value in known), max(value for _, value in known)
    first, last = known[0][0], known[-1][0]
    stretches: list[list[str]] = [[]]
    for step, value in zip(steps, values, strict=True):
        if value is None:
            stretches.append([])
            continue
        x = WIDTH * (step - first) / (last - first) if last > first else 0.0
        y = HEIGHT * (high - value) / (high - low) if high > low else HEIGHT / 2
        stretches[-1].append(f"{x:.1f},{y:.1f}")
    points = tuple(" ".join(part if len(part) > 1 else [*part, *part]) for part in stretches if part)
    return Chart(title, points, first, last, low, high, known[-1][1])


def number(value: float | None) -> str:
    """A figure of a chart: three digits that count."""
    return "not yet" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
