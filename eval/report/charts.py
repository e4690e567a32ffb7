"""The charts of a report on evaluations: safety against over-refusal, and attack success by category.

Reads the sections of a report; writes nothing. Drawn as `curation/report/charts.py` draws: SVG text that needs nothing
to be shown, and files on white.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt

from curation.report.charts import files_of, svg_of
from eval.report.figures import SAFETY, Figure, Report, ReportRow, Section
from eval.report.paper_results import METHODS, study, study_row
from pipelines.statistics import Interval

# One colour a method, told apart on white and on black; what is no method of the study's takes the next ones.
_COLOURS = ("#c2593f", "#c08a1e", "#7a6fd0", "#2a8a57", "#2f8fc0", "#c0609a", "#8a8a5c")
_STUDY = "#8a8a8a"
# With more rows than this, points have a legend in place of names beside them, and nobody could tell the lines of a
# category apart; the tables have them all.
_MOST_ROWS = 8


def page_charts(report: Report) -> Mapping[str, str]:
    """An SVG by name for a page: `tradeoff` and `categories` of the first section, `tradeoff-2` of the second, ..."""
    return {name: svg_of(chart) for name, chart in _drawn(report)}


def chart_files(report: Report) -> Mapping[str, bytes]:
    """The same charts as SVG and PNG files by name."""
    return files_of(dict(_drawn(report)))


def _drawn(report: Report) -> Iterator[tuple[str, Any]]:
    for at, section in enumerate(report.sections):
        for name, chart in (("tradeoff", _trade_off(section)), ("categories", _categories(section))):
            if chart is not None:
                yield f"{name}-{at + 1}" if at else name, chart


def _label(section: Section, row: ReportRow) -> str:
    """A row's method where that identifies it, else its whole name."""
    return row.method if row.method and len({one.model for one in section.rows}) == 1 else row.name


def _colour(field: str, names: list[str], **more: Any) -> alt.Color:
    """The study's methods in colours of their own, whichever of them are there; other names in the next ones."""
    own = dict(zip(METHODS, _COLOURS, strict=True))
    free = [colour for method, colour in own.items() if method not in names] or list(_COLOURS)
    others = [name for name in names if name not in own]
    chosen = own | {name: free[at % len(free)] for at, name in enumerate(others)}
    scale = alt.Scale(domain=names, range=[chosen[name] for name in names])
    return alt.Color(field, title=None, scale=scale, sort=names, **more)


def _spread(interval: Interval, axis: str) -> dict[str, float]:
    return {axis + part: 100 * getattr(interval, part) for part in ("rate", "low", "high")}


def _known(figure: Figure | None) -> Figure | None:
    return figure if figure is not None and figure.known else None


def _trade_off(section: Section) -> Any:
    """A panel an attack, in it a point with its interval both ways for each row, the study's rows in grey behind."""
    ours = [point for row in section.rows for point in _points(section, row)]
    if not ours:
        return None
    attacks = list(dict.fromkeys(point["attack"] for point in ours))
    theirs = [point for point in _study_points(section) if point["attack"] in attacks]
    top = max(5.0, *(point["yhigh"] for point in ours), *(point["yrate"] for point in theirs))
    y = alt.Scale(domain=[0, min(100, 10 * math.ceil(top / 10))])
    shapes = list(dict.fromkeys(point["model"] for point in (*ours, *theirs)))
    here = {(point["attack"], point["row"]) for point in ours}
    joined = [
        {**point, "xours": one["xrate"], "yours": one["yrate"]}
        for point in theirs
        for one in ours
        if (point["attack"], point["row"]) == (one["attack"], one["row"])
    ]
    apart = [point for point in theirs if (point["attack"], point["row"]) not in here]
    panels = []
    for attack in attacks:
        own, grey, lines, lone = (
            alt.Chart(alt.InlineData(values=[point for point in points if point["attack"] == attack]))
            for points in (ours, theirs, joined, apart)
        )
        panels.append(_panel(own, grey, lines, lone, y, shapes, ours).properties(title=f"{attack} and XSTest"))
    return alt.hconcat(*panels)


def _panel(
    own: alt.Chart,
    grey: alt.Chart,
    lines: alt.Chart,
    lone: alt.Chart,
    scale: alt.Scale,
    shapes: list[str],
    ours: list[dict[str, Any]],
) -> Any:
    across = alt.X("xrate:Q", title="attack success, %", scale=alt.Scale(domain=[0, 100]))
    up = alt.Y("yrate:Q", title="over-refusal, %", scale=scale, axis=alt.Axis(titlePadding=10))
    series = list(dict.fromkeys(point["series"] for point in ours))
    crowded = len({(point["model"], point["name"]) for point in ours}) > _MOST_ROWS
    legend_of_colours = alt.Legend(orient="bottom", columns=4, labelLimit=300) if crowded else None
    colour = _colour("series:N", series, legend=legend_of_colours)
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=300, title=None) if len(shapes) > 1 else None
    shape = alt.Shape("model:N", scale=alt.Scale(domain=shapes), legend=legend)
    bars = own.mark_rule(strokeWidth=1.5, opacity=0.6)
    names = own.mark_text(dx=8, dy=-9, align="left", fontWeight="bold").encode(x=across, y=up, text="name:N")
    apart = lone.mark_text(dx=5, align="left", fontSize=9, opacity=0.65).encode(x=across, y=up, text="name:N")
    return alt.layer(
        grey.mark_point(filled=True, size=30, color=_STUDY, opacity=0.7).encode(x=across, y=up, shape=shape),
        lines.mark_rule(color=_STUDY, strokeDash=[3, 2]).encode(x=across, y=up, x2="xours:Q", y2="yours:Q"),
        bars.encode(x=alt.X("xlow:Q"), x2="xhigh:Q", y=up, color=colour),
        bars.encode(x=across, y=alt.Y("ylow:Q"), y2="yhigh:Q", color=colour),
        own.mark_point(filled=True, size=90, opacity=1).encode(x=across, y=up, color=colour, shape=shape),
        *(() if crowded else (apart, names)),
    ).properties(width=270, height=250)


def _points(section: Section, row: ReportRow) -> Iterator[dict[str, Any]]:
    refusal = _known(row.figures.get("xstest"))
    for task, title in SAFETY.items():
        attack = _known(row.figures.get(task))
        if refusal and attack:
            marks = "".join(f" ({figure.mark})" for figure in (attack, refusal) if figure.mark)
            yield {
                "attack": title,
                "row": study_row(row.measured.base, row.measured.variant),
                "model": row.model.rpartition("/")[2],
                "series": row.method or row.model,
                "name": (row.method or _label(section, row)) + marks,
                **_spread(attack.counts.rate, "x"),
                **_spread(refusal.counts.rate, "y"),
            }


def _study_points(section: Section) -> list[dict[str, Any]]:
    """The study's rows of the models in this section; all four models, unnamed, where none of them is here."""
    bases = {row.measured.base.rpartition("/")[2].casefold() for row in section.rows}
    rows = {row: figures for row, figures in study().items() if row.method in METHODS}
    here = {row: figures for row, figures in rows.items() if row.model.casefold() in bases}
    return [
        {
            "attack": title,
            "row": row,
            "model": row.model if here else "the study's",
            "name": row.method if here else "",
            "xrate": 100 * figures[task].rate,
            "yrate": 100 * figures["xstest"].rate,
        }
        for row, figures in (here or rows).items()
        for task, title in SAFETY.items()
    ]


def _categories(section: Section) -> Any:
    """For each attack a line with its interval for every category and row."""
    names = [_label(section, row) for row in section.rows if any(row.groups.get(task) for task in SAFETY)]
    if not 0 < len(names) <= _MOST_ROWS:
        return None
    parts = []
    for task, title in SAFETY.items():
        lines = [
            {"category": figure.counts.group, "name": _label(section, row), **_spread(figure.counts.rate, "")}
            for row in section.rows
            for figure in row.groups.get(task, ())
            if _known(figure)
        ]
        if not lines:
            continue
        base = alt.Chart(alt.InlineData(values=lines)).encode(
            y=alt.Y("category:N", title=None, axis=alt.Axis(labelLimit=220)),
            yOffset=alt.YOffset("name:N", sort=names),
            color=_colour("name:N", names, legend=alt.Legend(orient="top", columns=4, labelLimit=300)),
        )
        x = alt.X("low:Q", title=f"{title}: attack success, %", scale=alt.Scale(domain=[0, 100]))
        rule = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
        dot = base.mark_point(filled=True, size=45, opacity=1).encode(x="rate:Q")
        parts.append((rule + dot).properties(width=460, height=alt.Step(11)))
    return alt.vconcat(*parts)
