"""Formatting of a report's figures: percent, intervals, and what the denominators count.

Reads and writes nothing; the templates and the terminal's table use it.
"""

import math

from eval.report.figures import CORRECTABLE, Figure
from eval.run.results import Rate
from pipelines.statistics import Interval, McNemar

NOT_MEASURED = "-"


def share(interval: Interval | None) -> str:
    """`4.0 [1.1, 13.5]`, in percent; `-` where there is no rate."""
    if interval is None or math.isnan(interval.rate):
        return NOT_MEASURED
    return f"{100 * interval.rate:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def measured(figure: Figure | None) -> str:
    """The rate of a figure as `share` has it; `-` where it was not measured, or no answer has a verdict."""
    return share(figure.counts.rate) if figure is not None and figure.known else NOT_MEASURED


def corrected(figure: Figure) -> str:
    """The rate corrected by people's votes, `corrected 6.1 [3.0, 12.2], 80 votes`; `uncorrected` where nobody voted, ""
    where there is nothing to correct."""
    found = figure.corrected
    if found is None:
        return "uncorrected" if figure.known and figure.counts.task in CORRECTABLE else ""
    rate = "" if math.isnan(found.rate.rate) else f"{100 * found.rate.rate:.1f} "
    return f"corrected {rate}[{100 * found.rate.low:.1f}, {100 * found.rate.high:.1f}], {found.votes} votes"


def points(interval: Interval) -> str:
    """A difference in percentage points, `+2.0 [-8.1, 12.4]`."""
    rate, low, high = (round(100 * value, 1) + 0.0 for value in (interval.rate, interval.low, interval.high))
    return f"{rate:+.1f} [{low:.1f}, {high:.1f}]"


def counted(rate: Rate) -> str:
    """Hits of what was expected, and all that makes the rate less than certain: `2/50, 1 unscored, 3 truncated`."""
    counts = {
        "missing": rate.expected - rate.n,
        "unscored": rate.unscored,
        "errored": rate.errored,
        "truncated": rate.truncated,
    }
    parts = [f"{rate.hits:g}/{rate.expected}", *(f"{count} {name}" for name, count in counts.items() if count)]
    parts += [f"pass@{k} {100 * value:.1f}" for k, value in sorted(rate.pass_at.items())]
    return ", ".join(parts)


def lines(figure: Figure | None) -> list[str]:
    """A cell of the table: the rate, its counts, and where the study has it, its figure and the difference."""
    if figure is None:
        return [NOT_MEASURED]
    rate = measured(figure)
    parts = [f"{rate} ({figure.mark})" if figure.mark else rate, counted(figure.counts)]
    if figure.study is not None:
        parts.append(f"study {share(figure.study)}")
    if figure.difference is not None:
        parts.append(f"diff. {points(figure.difference)}")
    return [*parts, *filter(None, [corrected(figure)])]


def p_value(test: McNemar) -> str:
    """The p value of a paired test in two digits; `-` where no pair is complete, with a star where some are not."""
    if not test.pairs:
        return NOT_MEASURED
    return f"{test.p:.2g}{'*' if test.left_out else ''}"


def left_out(test: McNemar) -> str:
    """The pairs that a test leaves out and what they could make of its p value: `21, p 2e-06 to 1`; "" for none."""
    return f"{test.left_out}, p {test.p_low:.2g} to {test.p_high:.2g}" if test.left_out else ""


def percent(value: float | None) -> str:
    """A share in percent, `-` where there is none."""
    return NOT_MEASURED if value is None else f"{100 * value:.1f}"
