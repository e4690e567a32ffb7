"""The charts of a report, drawn once by Altair and vl-convert: SVG text that needs nothing to be shown.

Reads the figures of `curation/report/data.py`; writes nothing. Text takes the page's colour by the page's own style
sheet, so that a chart is readable in light and dark.
"""

import re
from typing import Any

import altair as alt

from curation.report.data import RATES
from pipelines.prompts.variant import load_variants

_BEFORE, _AFTER, _STUDY = "#c2593f", "#2a7d4f", "#7a6fd0"
_WORDS = [label.replace("_", " ") for label in RATES]


def charts_of(figures: dict[str, Any]) -> dict[str, str]:
    """An SVG for each chart that the run has figures for: patterns, drift, lengths, survival."""
    return {name: svg_of(chart) for name, chart in _drawn(figures).items()}


def plot_files(figures: dict[str, Any]) -> dict[str, bytes]:
    """The same charts as files by name."""
    return files_of(_drawn(figures))


def files_of(charts: dict[str, Any]) -> dict[str, bytes]:
    """Altair's charts on white as files by name: an SVG and a PNG of twice its size each."""
    import vl_convert

    files = {}
    for name, chart in charts.items():
        configured = chart.configure(background="white", font="sans-serif", padding=12).configure_view(stroke=None)
        svg = str(vl_convert.vegalite_to_svg(configured.to_dict(validate=False)))
        files[f"{name}.svg"] = _renumbered(svg).encode()
        files[f"{name}.png"] = bytes(vl_convert.svg_to_png(svg, scale=2))
    return files


def _renumbered(svg: str) -> str:
    """Renumber gradients and clips, which Vega numbers across charts, so that the same chart gives the same SVG."""
    numbers: dict[str, str] = {}
    return re.sub(r"\b(gradient_|clip)\d+\b", lambda m: numbers.setdefault(m[0], f"{m[1]}{len(numbers)}"), svg)


def _drawn(figures: dict[str, Any]) -> dict[str, Any]:
    charts = {
        "patterns": _patterns(figures["patterns"]),
        "drift": _drift(figures.get("drift")),
        "lengths": _lengths(figures["lengths"]),
        "survival": _survival(figures["survivorship"]),
        "reliability": _reliability((figures.get("people") or {}).get("confidence")),
    }
    return {name: chart for name, chart in charts.items() if chart is not None}


def svg_of(chart: Any) -> str:
    """An Altair chart as SVG text for a page, whose style sheet colours its words and axes."""
    import vl_convert

    # Room at the sides: the reader's font may be wider than the one measured here.
    room = {"left": 24, "right": 12, "top": 5, "bottom": 5}
    configured = chart.configure(background="transparent", font="sans-serif", padding=room).configure_view(stroke=None)
    svg: str = vl_convert.vegalite_to_svg(configured.to_dict(validate=False))
    # The page says what a chart shows, and scrolls where it is narrower.
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    width = size.group(1) if size else "640"
    return re.sub(r"^<svg ", f'<svg aria-hidden="true" style="height:auto;width:{width}px" ', svg)


def _names(found: Any) -> list[str]:
    return [name for name in (*load_variants(), "benign") if name in found]


def _patterns(patterns: list[dict[str, Any]]) -> Any:
    """A dot with its interval for each variant and label, before repair and as kept."""
    rows = [
        {
            "variant": item["config"],
            "label": item["label"].replace("_", " "),
            "when": when,
            **{key: 100 * item[key_of][key] for key in ("rate", "low", "high")},
        }
        for item in patterns
        for when, key_of in (("before repair", "before"), ("after repair", "after"))
        if item[key_of] and item[key_of]["rate"] is not None
    ]
    if not rows:
        return None
    base = alt.Chart(alt.InlineData(values=rows))
    y = alt.Y("label:N", title=None, sort=_WORDS)
    offset = alt.YOffset("when:N", sort=["before repair", "after repair"])
    colour = alt.Color(
        "when:N",
        title=None,
        scale=alt.Scale(domain=["before repair", "after repair"], range=[_BEFORE, _AFTER]),
        legend=alt.Legend(orient="top"),
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="% of judged rows", scale=alt.Scale(domain=[0, 100])),
        x2="high:Q",
        y=y,
        yOffset=offset,
        color=colour,
    )
    dots = base.mark_point(filled=True, size=40).encode(x="rate:Q", y=y, yOffset=offset, color=colour)
    return (
        (bars + dots)
        .properties(width=190, height=150)
        .facet(alt.Facet("variant:N", title=None, sort=_names({row["variant"] for row in rows})), columns=3)
    )


def _drift(found: dict[str, Any] | None) -> Any:
    """The middle half of the drift points of each variant, and their median."""
    rows = [
        {"variant": item["config"], **{key: 100 * item[key] for key in ("p25", "median", "p75")}}
        for item in (found or {}).get("variants", ())
        if item["placed"]
    ]
    if not rows:
        return None
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("variant:N", title=None, sort=_names({row["variant"] for row in rows}))
    )
    x = alt.X("p25:Q", title="% of the reasoning before the first bad sentence", scale=alt.Scale(domain=[0, 100]))
    half = base.mark_rule(strokeWidth=8, color=_BEFORE, opacity=0.5).encode(x=x, x2="p75:Q")
    median = base.mark_point(filled=True, size=70, color=_BEFORE).encode(x="median:Q")
    return (half + median).properties(width=520, height=34 * len(rows))


def _lengths(lengths: list[dict[str, Any]]) -> Any:
    """From the 10th to the 90th percentile with the mean, beside the study's mean and 90th percentile."""
    rows = [
        {
            "variant": item["config"],
            **{key: item[key] for key in ("p10", "median", "p90", "mean", "study_mean", "study_p90")},
        }
        for item in lengths
    ]
    if not rows:
        return None
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("variant:N", title=None, sort=_names({row["variant"] for row in rows}))
    )
    x = alt.X("p10:Q", title="tokens of a response (log scale)", scale=alt.Scale(type="log"))
    ours = base.mark_rule(strokeWidth=8, color=_AFTER, opacity=0.5).encode(x=x, x2="p90:Q")
    mean = base.mark_point(filled=True, size=70, color=_AFTER).encode(x="mean:Q")
    study = base.mark_rule(strokeWidth=2, color=_STUDY, yOffset=9).encode(x="study_mean:Q", x2="study_p90:Q")
    ends = base.mark_tick(thickness=3, size=12, color=_STUDY, yOffset=9).encode(x="study_mean:Q")
    return (ours + mean + study + ends).properties(width=520, height=34 * len(rows))


def _reliability(found: dict[str, Any] | None) -> Any:
    """A dot for rows of about the same confidence, on the line where it is the chance of being right."""
    if not found:
        return None
    rows = [{**one, "confidence": 100 * one["confidence"], "right": 100 * one["right"]} for one in found["bins"]]
    ends = [{"confidence": 0, "right": 0}, {"confidence": 100, "right": 100}]
    x = alt.X("confidence:Q", title="confidence, %", scale=alt.Scale(domain=[0, 100]))
    y = alt.Y("right:Q", title="right by people's votes, %", scale=alt.Scale(domain=[0, 100]))
    line = alt.Chart(alt.InlineData(values=ends)).mark_line(strokeDash=[4, 3], color=_STUDY).encode(x=x, y=y)
    size = alt.Size("rows:Q", legend=None, scale=alt.Scale(range=[30, 200]))
    dots = alt.Chart(alt.InlineData(values=rows)).mark_point(filled=True, color=_AFTER).encode(x=x, y=y, size=size)
    return (line + dots).properties(width=260, height=260)


def _survival(found: dict[str, Any] | None) -> Any:
    """A cell for each category or template and each variant: the share of prompts that survive."""
    if not found:
        return None
    rows = [
        {
            "variant": item["config"],
            "dimension": {"category": "category", "template": "jailbreak template"}[item["dimension"]],
            "value": item["value"] or "bare",
            "survival": 100 * item["survival"],
            "label": f"{100 * item['survival']:.0f}",
        }
        for item in found["biases"]
    ]
    if not rows:
        return None
    parts = []
    for dimension in ("category", "jailbreak template"):
        own = [row for row in rows if row["dimension"] == dimension]
        base = alt.Chart(alt.InlineData(values=own)).encode(
            x=alt.X("variant:N", title=None, sort=_names({row["variant"] for row in own}), axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:N", title=dimension, axis=alt.Axis(titlePadding=30)),
        )
        cells = base.mark_rect().encode(
            color=alt.Color(
                "survival:Q",
                title="% surviving",
                scale=alt.Scale(domain=[0, 100], range=["#b3402e", "#f3efe6", "#2a7d4f"]),
            )
        )
        words = base.mark_text(fontSize=11, description="figure").encode(
            text="label:N",
            color=alt.condition("datum.survival < 25 || datum.survival > 85", alt.value("#fff"), alt.value("#222")),
        )
        height = 22 * len({row["value"] for row in own})
        parts.append((cells + words).properties(width=64 * len(_names({row["variant"] for row in own})), height=height))
    return alt.vconcat(*parts)
