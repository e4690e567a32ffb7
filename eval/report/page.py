"""The report of one or more evaluations: the study's table, the trade-off, comparisons, examples.

Reads results.json of each evaluation (`eval/run/results.py`) and the study's figures (`eval/report/paper_results.py`).
Writes

    <output>/
      report.html     one file that loads nothing from anywhere
      report.md       tables alone, for a model's card: no question and no answer is in it
      report.json     every figure
      plots/          the charts as SVG and PNG
      inspect/        on request: Inspect's own viewer with the logs, to be served by any web server

Run with `saferthoughts report eval runs/*/eval`.
"""

import contextlib
import functools
import io
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from cards.card.markdown import cell
from curation.report.headline import LOOK, with_contents
from eval.report import words as report_words
from eval.report.charts import chart_files, page_charts
from eval.report.examples import EACH, by_outcome
from eval.report.figures import COLUMNS, OVER_REFUSAL, REASONING, SAFETY, EvaluationSource, Report
from eval.report.paper_results import NOTE
from eval.report.sections import report_of
from eval.review.corrected import corrected_rates
from eval.run.results import NAME, Results, read_results
from pipelines.errors import UserError, visible_value
from pipelines.runs import atomic_folder, write_json, write_text

_KINDS = {
    "Correct, % (higher is better)": REASONING,
    "Attack success, % (lower)": SAFETY,
    "Over-refusal, % (lower)": OVER_REFUSAL,
}
_FOLDER = Path(__file__).parent
LOG = ".eval"


def read_sources(paths: Sequence[Path]) -> list[EvaluationSource]:
    """Read evaluations; each gets the shortest name that identifies it.

    Args:
        paths: Folders with a results.json, such files, or single logs of Inspect's (.eval).

    Raises:
        UserError: one is missing, is no results.json, or is there twice.
    """
    places = [path.resolve() if path.is_dir() or path.suffix == LOG else path.resolve().parent for path in paths]
    twice = [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UserError(f"The same evaluation is given twice: {', '.join(twice)}. Give each once.")
    found = [_results(path) for path in paths]
    folders = [place.parent if place.suffix == LOG else place for place in places]
    return [
        EvaluationSource(name, folder, results, corrected_rates(folder, results))
        for name, folder, results in zip(_names(places), folders, found, strict=True)
    ]


def _results(path: Path) -> Results:
    if path.suffix != LOG:
        return read_results(path)
    from eval.run.inspect_logs import results_of_log  # which loads Inspect

    return results_of_log(path)


def _names(folders: Sequence[Path]) -> list[str]:
    """`mine` for runs/mine/eval, the folder's name for another, and as many parents as make it unique."""
    parts = [folder.parts[:-1] if folder.name == "eval" and folder.parent.name else folder.parts for folder in folders]
    for length in range(1, max((len(one) for one in parts), default=1) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def write_evaluation_report(sources: Sequence[EvaluationSource], output: Path, bundle: bool = False) -> Report:
    """Write the report into `output` and return its contents.

    Args:
        sources: What `read_sources` gives.
        output: A folder, made where it is not there.
        bundle: Whether Inspect's viewer is written beside it.

    Raises:
        UserError: an evaluation's counts do not add up, or with `bundle` it has no logs.
    """
    report = report_of(sources)
    if bundle:
        write_bundle(sources, output / "inspect")
    write_json(output / "report.json", report.plain())
    write_text(output / "report.md", markdown_of(report))
    with atomic_folder(output / "plots") as folder:
        for name, content in chart_files(report).items():
            (folder / name).write_bytes(content)
    write_text(output / "report.html", page_of(report, bundled=(output / "inspect" / "index.html").exists()))
    return report


def page_of(report: Report, bundled: bool = False, study: Mapping[str, Any] | None = None) -> str:
    """The report's page.

    Args:
        report: What it shows.
        bundled: Whether Inspect's viewer is in inspect/ beside it.
        study: Of a study, what stands above it: title, tables (`eval.report.cells.Cells`), and lines `honesty`.
    """
    charts = {name: Markup(svg) for name, svg in page_charts(report).items()}
    page = _rendered("report.html.jinja", report, autoescape=True, charts=charts, bundled=bundled, study=study)
    return with_contents(page, levels="23")


def markdown_of(report: Report) -> str:
    """The tables as GitHub-flavoured markdown."""
    return _rendered("report.md.jinja", report, autoescape=False)


def _rendered(template: str, report: Report, autoescape: bool, **more: Any) -> str:
    page = (
        _environment(autoescape)
        .get_template(template)
        .render(report=report, columns=COLUMNS, kinds=_KINDS, study_note=NOTE, each=EACH, **more)
    )
    # Half of a surrogate pair can stand in an answer, and in no file.
    return page.encode("utf-8", "replace").decode()


@functools.cache
def _environment(autoescape: bool) -> jinja2.Environment:
    """Prompts and answers are hostile text: a page escapes all of it, markdown what `text` and `code` are put on."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_FOLDER, LOOK]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
        finalize=visible_value,
    )
    words = (
        report_words.measured,
        report_words.counted,
        report_words.lines,
        report_words.p_value,
        report_words.left_out,
        report_words.percent,
    )
    environment.filters |= {word.__name__: word for word in words}
    environment.filters |= {"by_outcome": by_outcome, "settings": _settings, "text": cell, "code": _code}
    return environment


def _settings(settings: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=math.inf)).strip()[1:-1]


def _code(value: Any) -> str:
    return "`" + " ".join(str(value).split()).replace("`", "'") + "`"


def write_bundle(sources: Sequence[EvaluationSource], output: Path) -> None:
    """Inspect's viewer with the logs of every evaluation, as files for a web server.

    Raises:
        UserError: an evaluation whose logs are gone.
    """
    from inspect_ai.log import bundle_log_dir

    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            for run in source.results.tasks:
                for label, log in run.logs.items():
                    path = (source.path / log).resolve()
                    # A name from a file is taken for a log only where logs are.
                    if not path.is_relative_to(source.path) or not path.is_file():
                        raise UserError(
                            f"{source.path} has no log '{log}' any more, which its {NAME} names for {run.name} of "
                            f"{label}. Report without --bundle."
                        )
                    kept = Path(folder) / source.name.replace("/", "_") / log
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, kept)
        # Inspect prints progress to stdout, where the report's own result goes.
        with contextlib.redirect_stdout(io.StringIO()):
            # An absolute path: one that begins with hf/ would be put on the Hub.
            bundle_log_dir(folder, str(output.resolve()), overwrite=True)
