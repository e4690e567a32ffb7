"""Commands of judging: `saferthoughts judge RUN`, `judge list` on who can, `judge score RUN` on how good they are."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from saferthoughts.cli.options import (
    AsJson,
    JudgeNames,
    RunName,
    Shortened,
    figures,
    group,
    open_folder,
    open_run,
    out,
    say,
    say_json,
    show,
    takes,
)
from saferthoughts.settings import RequestSettings, StageSettings

if TYPE_CHECKING:
    from pipelines.judges.scoring import LabelScore
    from pipelines.statistics import Interval


judge_app = group("Look for the five risky patterns, unsafe rows and refusals: judge RUN.", Shortened)


@judge_app.command(name="run")
@takes(StageSettings, without=("allow_no_reasoning",))
def judge(
    name: RunName,
    judges: JudgeNames = None,
    vote: Annotated[str | None, typer.Option("--vote", help="majority, any or all: how many judges must flag.")] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Policy of a judge of form policy, as JUDGE=FILE; repeatable."),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(min=1, max=20, help="Requests for each verdict; the share that agrees is its confidence."),
    ] = None,
    logprobs: Annotated[
        bool | None,
        typer.Option("--logprobs/--no-logprobs", help="Take the confidence from the judges' token probabilities."),
    ] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Judge every response of a run; asks only for what is missing. `judge RUN` is short for it.

    Example: saferthoughts judge mine --judge o3 --judge reasoningshield
    """
    own: dict[str, Any] = {"vote": vote, "policies": policies, "repeat": repeat, "logprobs": logprobs}
    show(open_run(name).judge(*judges or (), **own, **options), as_json)


@judge_app.command(name="list")
def list_judges() -> None:
    """Every shipped judge: what it looks for, who answers, licence, size, and what its authors publish of it.

    Example: saferthoughts judge list
    """
    from pipelines.judges.published import published
    from pipelines.settings.teacher import load_teachers

    teachers = load_teachers()
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, (judge, facts) in published().items():
        teacher = teachers[judge.teacher] if judge.teacher else None
        figures = f"{facts.figures} ({facts.source})" if facts.source else facts.figures
        table.add_row(Text(name, style="bold"), facts.looks_for)
        table.add_row("  asks", f"{teacher.model} at {teacher.place}" if teacher else "nobody")
        table.add_row("  licence", f"{facts.licence}; size: {facts.size}")
        table.add_row("  figures", figures)
        table.add_section()
    out.print(table)


@judge_app.command()
def distill(
    name: RunName,
    to: Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist.")],
    source: Annotated[str, typer.Option("--from", help="Source of the labels: judges or people.")] = "judges",
    encoder: Annotated[
        Path | None, typer.Option(help="A folder of sentence-transformers; all-MiniLM-L6-v2 if not given.")
    ] = None,
    push: Annotated[str | None, typer.Option(help="Push the folder to this model repository, ORG/NAME.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository private.")] = False,
) -> None:
    """Make a small judge for this machine's CPU out of a run's verdicts, and measure it.

    Example: saferthoughts judge distill mine --out judges/mine
    """
    from pipelines.errors import Incomplete

    if push is not None:
        from cards.hub.push_model import check_pushable

        check_pushable(push)
    done = open_run(name).distil(to, source=source, encoder=encoder)
    out.print(_measures_table(done.measures))
    say(f"{done.path}: version {done.version[:12]}, from {done.rows} responses to {done.prompts} prompts")
    if push is not None:
        from cards.hub.push_model import push_model
        from saferthoughts.cli.words import words_of

        say(words_of(push_model(done.path, push, private)))
    if done.missing:
        raise Incomplete("Too few rows for " + "; ".join(f"{label}: {why}" for label, why in done.missing.items()))


def _measures_table(measures: "Mapping[str, Any]") -> Table:
    table = Table(
        title="cross-validated, percent with 95 % intervals",
        caption="Brier score: of the judge, and of saying the mean share always; lower is better",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in ("label", "rows with it", "recall at 1 %", "recall at 5 %", "Brier"):
        table.add_column(column, justify="left" if column == "label" else "right", no_wrap=True)
    for label, found in measures.items():
        rates = [
            f"{100 * at['recall']:.0f} [{100 * at['low']:.0f}, {100 * at['high']:.0f}]"
            for at in found["recall"].values()
        ]
        brier = f"{found['brier']:.3f}, {found['brier_of_the_mean']:.3f}"
        table.add_row(label, f"{found['positives']}/{found['rows']}", *rates, brier)
    return table


@judge_app.command()
def score(
    name: RunName,
    against: Annotated[str, typer.Option(help="truth (of the rehearsal teacher) or examples (bundled).")] = "truth",
    as_json: AsJson = False,
) -> None:
    """How good a run's judges are, label by label: precision, recall, F1, Cohen's kappa, with intervals.

    Example: saferthoughts judge score demo
    """
    from pipelines.judges.scoring import read_scores, score_run

    run = open_folder(name)
    scores = score_run(run, against)
    if as_json:
        say_json(read_scores(run))
    else:
        out.print(score_table(scores, against))


@judge_app.command()
@takes(RequestSettings, without=("max_failed", "allow_no_reasoning"))
def stress(
    name: RunName,
    rows: Annotated[int, typer.Option(min=1, help="Rows to ask about, in nine forms each.")] = 50,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """How often verdicts flip when a response is changed and its meaning is not: eight changes, each with an interval.

    Example: saferthoughts judge stress demo --rows 50
    """
    from pipelines.judges.stress import stress as put_under_strain
    from pipelines.statistics import Interval
    from saferthoughts.settings import request_options

    run = open_folder(name)
    facts = put_under_strain(run, rows, request_options(run.path.parent, **options))
    if as_json:
        say_json(facts)
        return
    columns = ("judge", "change", "rows", "flips", "to a fault", "lost", "flipped")
    title = f"verdicts that flip, percent with 95 % intervals, {facts['rows']} rows"
    table = figures(*columns, names=2, title=title)
    for line in facts["lines"]:
        counts = (line[key] for key in ("rows", "flips", "to_fault", "lost"))
        share = "-" if line["rate"] is None else _percent(Interval(line["rate"], line["low"], line["high"]))
        change = line["change"].replace("_", " ")
        table.add_row(Text(line["judge"]), change, *map(str, counts), share.replace("\n", " "))
    out.print(table)


def score_table(scores: "list[LabelScore]", against: str) -> Table:
    """The scores as a table that fits a terminal: percent, each with its interval below it."""
    table = figures(
        *("label", "counts", "precision", "recall", "F1", "kappa"),
        title=f"judges against {against}, percent with 95 % intervals",
        caption="counts: true positives/false positives/misses/true negatives/unscored; recall and F1 count a label "
        "that should be set and was left unscored as missed",
        padding=(0, 1, 0, 0),
        no_wrap=True,
    )
    judges = [line.judge for line in scores]
    for number, line in enumerate(scores):
        if line.judge not in judges[:number]:
            table.add_section()
            table.add_row(Text(line.judge, style="bold"))
        rates = [_percent(value) for value in (line.precision, line.recall, line.f1, line.kappa)]
        table.add_row(line.label, "/".join(map(str, (*line.confusion, line.unscored))), *rates)
    return table


def _percent(interval: "Interval") -> str:
    if math.isnan(interval.rate):
        return "-"
    return f"{100 * interval.rate:.0f}\n[{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
