"""The dataset card: `dataset_card.md.jinja` filled from a lineage and nothing else."""

from pathlib import Path
from typing import Any

import jinja2

from pipelines.records import PATTERNS

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # the output is markdown, and every value comes from our own configuration and counts
)
# Upper bounds of the Hub's size categories.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def size_category(rows: int) -> str:
    """The Hub's name for a dataset of that many rows."""
    return next((name for bound, name in _SIZES if rows < bound), "1M<n<10M")


def dataset_card(lineage: dict[str, Any]) -> str:
    """README.md of a release. A value that the lineage lacks is an error, never a gap."""
    rows = {name: count for name, count in lineage["rows"].items() if count}
    repair = lineage["repair"]
    return _ENVIRONMENT.get_template("dataset_card.md.jinja").render(
        **lineage,
        configs=[*rows, "metadata"],
        total=sum(rows.values()),
        size=size_category(sum(rows.values())),
        labels=list(PATTERNS),
        most=range(max((len(fault["mended"]) for fault in repair["by_pattern"]), default=0) if repair else 0),
        safety_judged=any(judge["kind"] == "safety" for judge in lineage["judging"]["judges"].values()),
    )
