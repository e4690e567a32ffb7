"""report.html and report.json: what people look at after a run.

Reads what the run has (`curation/report/data.py`); writes report.json, every figure, and report.html, one file that
loads nothing from anywhere. Run it with `saferthoughts report RUN`; every stage that ran by then is in it.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from curation.report.charts import charts_of
from curation.report.data import RATES, figures_of
from curation.report.excerpts import rows_link
from curation.report.headline import headline_of, with_contents
from pipelines.errors import visible_value
from pipelines.judges.spans import marked
from pipelines.runs import RunFolder, write_json, write_text

_FOLDER = Path(__file__).parent
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=True,  # prompts and responses are hostile text
    finalize=visible_value,
)
# Filters the example rows; the page allows this one script, by its hash.
_SCRIPT = """
const words = document.getElementById("words"), check = document.getElementById("check");
function filter() {
  let shown = 0;
  for (const row of document.querySelectorAll(".example")) {
    const fits = (!check.value || row.dataset.check === check.value)
      && row.textContent.toLowerCase().includes(words.value.toLowerCase());
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("shown").textContent = shown + " rows";
}
if (words) { words.oninput = filter; check.onchange = filter; filter(); }
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# What the page may load and run: this one script, its own styles, and nothing else from anywhere.
POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'"

ROWS_LINK = 'href="#rows?'
"""How a link to the rows behind a figure begins; texts of others are escaped, and cannot hold it."""


def write_report(run: RunFolder) -> Path:
    """Write the report of what the run has so far and return the page's path.

    Raises:
        UserError: a table of the run is broken.
    """
    figures = figures_of(run)
    charts = {name: Markup(svg) for name, svg in charts_of(figures).items()}
    page = _ENVIRONMENT.get_template("report.html.jinja").render(
        **figures,
        headline=headline_of(figures),
        charts=charts,
        rates=RATES,
        most=_most(figures),
        pieces=marked,
        rows_link=rows_link,
        anchors={anchor for row in figures["excerpts"] for anchor in row["anchors"]},
        script=Markup(_SCRIPT),
        policy=Markup(POLICY),
    )
    path = run.path / "report.html"
    write_json(run.path / "report.json", figures)
    write_text(path, with_contents(page))
    return path


def _most(figures: dict[str, Any]) -> range:
    """The attempts that the repair table has columns for."""
    repair = figures["repair"]
    return range(max((len(fault["mended"]) for fault in repair["by_pattern"]), default=0) if repair else 0)
