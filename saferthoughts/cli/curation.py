"""Commands of curation: check, sql, duplicates, contamination, select."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from saferthoughts.cli.options import (
    AsJson,
    RunName,
    Settings,
    figures,
    note,
    open_folder,
    open_run,
    out,
    say,
    say_json,
    show,
    takes,
)
from saferthoughts.settings import ChangeSettings, EngineSettings

if TYPE_CHECKING:
    from curation.report.survivorship import Survivorship
    from pipelines.runs import RunFolder

Only = Annotated[list[str] | None, typer.Option("--only", help="Show what this check rejects, and write nothing.")]
OwnChecks = Annotated[Path | None, typer.Option("--checks", help="A folder of your own .sql checks, added to ours.")]
Filter = Annotated[
    str | None, typer.Option("--filter", help="Filter: all, safety (the study's), but-weak-vacillation, clean.")
]
Explain = Annotated[str | None, typer.Option(help="Show the history of one response by its id; check nothing.")]
Dataset = Annotated[str | None, typer.Option(help="A file, folder or OWNER/NAME on the Hub to make the run from.")]
Mapping = Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, for columns of other names.")]
Kind = Annotated[str | None, typer.Option(help="With --dataset: harmful or benign, for rows without a kind.")]
Config = Annotated[str | None, typer.Option(help="With --dataset: the configuration to read.")]
Split = Annotated[str, typer.Option(help="With --dataset: the split to read.")]
Shape = Annotated[str, typer.Option("--variant", help="With --dataset: the variant whose shape is checked.")]
Revision = Annotated[str | None, typer.Option(help="With --dataset: a tag or commit on the Hub.")]


_EXAMPLES = 3


@takes(ChangeSettings)
def check(
    name: RunName,
    only: Only = None,
    checks: OwnChecks = None,
    filter: Filter = None,
    explain: Explain = None,
    dataset: Dataset = None,
    mapping: Mapping = None,
    kind: Kind = None,
    config: Config = None,
    split: Split = "train",
    revision: Revision = None,
    variant: Shape = "direct",
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Run the quality queries: accepted rows, and rejected rows with reasons.

    With --dataset it makes the run first, from rows that were not generated here, and judges them by rules.

    Example: saferthoughts check audit --dataset rows.jsonl --map response=completion --kind harmful
    """
    from curation.quality.checks import filter_settings
    from pipelines.errors import UserError
    from saferthoughts.cli.words import words_of
    from saferthoughts.settings import checks_folder

    if explain is not None:
        _explain(open_folder(name), explain)
        return
    if dataset is None and (mapping or kind or config or revision):
        raise UserError("--map, --kind, --config and --revision go with --dataset: they say how to read it.")
    if dataset is not None:
        _import(name, dataset, mapping or [], kind=kind, config=config, split=split, revision=revision, variant=variant)
    run = open_run(name)
    also = {"checks.folder": checks_folder(checks), **filter_settings(filter)}
    run.change(**options, also=also)
    if dataset is not None:
        say(words_of(run.judge()))
    if only:
        _look(run.folder, only)
    else:
        show(run.check(), as_json)


def _import(name: str, dataset: str, mapping: list[str], **how: Any) -> None:
    from pipelines.settings.overrides import key_and_value
    from saferthoughts.run import Run

    columns = dict(key_and_value(text, "--map", "response=completion") for text in mapping)
    run = Run.from_dataset(name, dataset, columns=columns, runs=Settings.runs, **how)
    read = run.folder.manifest()["stages"]["import"]
    counts = read["counts"]
    say(f"{run.path}: {counts['kept']} of {counts['planned']} rows read")
    if read["unread"]:
        note(f"columns of which nothing was made: {', '.join(read['unread'])}")
    if counts["failed"]:
        failed = run.folder.read("failed")
        where = run.folder.table_path("failed")
        note(f"{counts['failed']} rows refused, see {where}; the first: {failed['error'][0]}")


def _look(run: "RunFolder", only: list[str]) -> None:
    """What some checks object to, with a few rows of each reason, mild ones first."""
    from curation.quality.checks import objections_of
    from pipelines.generate.plan import prompts_of
    from pipelines.judges.stage import rows_of
    from pipelines.prompts.mildness import severity

    places = {prompt.prompt_id: severity(prompt.category, prompt.kind) for prompt in prompts_of(run)}
    place = {row.response.response_id: places[row.response.prompt_id] for row in rows_of(run)}
    found = objections_of(run, only).to_pylist()
    found.sort(key=lambda row: (row["check_name"], row["reason"], place[row["response_id"]]))
    seen: dict[tuple[str, str], int] = {}
    table = Table("check", "reason", "response", "value", box=None)
    for row in found:
        key = (row["check_name"], row["reason"])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= _EXAMPLES:
            cells = (row["check_name"], row["reason"], row["response_id"], row["value"] or "")
            table.add_row(*(Text(_printable(cell)) for cell in cells))
    out.print(table)
    for (name, reason), count in seen.items():
        say(f"{name}: {reason}: {count}")
    note("Nothing was written: without --only, all checks decide who is accepted.")


def _explain(run: "RunFolder", response_id: str) -> None:
    from curation.row_history import row_history

    for title, text in row_history(run, response_id).parts:
        # Control characters of a hostile row must not reach the terminal.
        safe = "".join(mark if mark.isprintable() or mark == "\n" else "\N{REPLACEMENT CHARACTER}" for mark in text)
        out.print(Text(title, style="bold"))
        out.print(Text(safe or "(empty)"), soft_wrap=True)


def sql(
    name: RunName,
    query: Annotated[str, typer.Argument(help="One SELECT, a .sql file with one, or patterns, filters, lengths.")],
    rows: Annotated[int, typer.Option(min=1, help="Most rows to print.")] = 40,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this CSV file instead.")] = None,
) -> None:
    """Query a run's tables, read-only: prompts, responses, judgements, verdicts, repairs, accepted, rejected, ...

    Example: saferthoughts sql demo "select check_name, count(*) from rejected group by all"

    Example: saferthoughts sql mine patterns --csv patterns.csv
    """
    found = open_run(name).sql(query).to_arrow()
    if csv is not None:
        import pyarrow.csv

        from pipelines.runs import atomic

        with atomic(csv) as temporary:
            pyarrow.csv.write_csv(found, temporary)
        say(f"{csv}: {found.num_rows} rows")
        return
    table = Table(box=None)
    for column in found.column_names:
        table.add_column(Text(column))
    for row in found.slice(0, rows).to_pylist():
        table.add_row(*(Text("" if value is None else _printable(str(value))) for value in row.values()))
    out.print(table)
    if found.num_rows > rows:
        note(f"{rows} of {found.num_rows} rows; --rows N shows more, --csv FILE writes all")


def _printable(text: str) -> str:
    return "".join(mark if mark.isprintable() else " " for mark in text)


@takes(EngineSettings)
def duplicates(name: RunName, as_json: AsJson = False, **options: Any) -> None:
    """Find near-duplicate requests and responses by MinHash; `check` rejects them if the run is set so."""
    show(open_run(name).duplicates(**options), as_json)


@takes(EngineSettings)
def contamination(
    name: RunName,
    against: Annotated[
        list[str], typer.Option(help="advbench, xstest, ...; a file; OWNER/NAME; or NAME=FILE. Repeat for several.")
    ],
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Find where prompts and responses overlap with evaluation sets, behind jailbreak templates too.

    Example: saferthoughts contamination mine --against xstest --against own=questions.jsonl
    """
    show(open_run(name).contamination(*against, **options), as_json)


def select(
    name: RunName,
    harmful: Annotated[int | None, typer.Option(min=0, help="Harmful rows of each variant.")] = None,
    benign: Annotated[int | None, typer.Option(min=0, help="Benign rows.")] = None,
    variants: Annotated[list[str] | None, typer.Option("--variant", help="A variant to draw; repeatable.")] = None,
    paired: Annotated[
        bool | None, typer.Option("--paired/--per-variant", help="Only prompts that survive in all chosen variants.")
    ] = None,
    stratified: Annotated[
        bool | None, typer.Option("--stratified/--at-random", help="In the prompts' proportions, or as the study drew.")
    ] = None,
    as_json: AsJson = False,
    by: Annotated[
        str | None, typer.Option(help="student_nll: first what the student finds likeliest (see `student nll`).")
    ] = None,
) -> None:
    """Draw the rows to release, stratified by category and template; show which prompts the checks removed.

    Example: saferthoughts select mine --harmful 1000 --benign 100 --paired
    """
    chosen = open_run(name).select(
        harmful=harmful, benign=benign, variants=variants, paired=paired, stratified=stratified, by=by
    )
    if as_json:
        say_json(chosen)
        return
    out.print(survivorship_table(chosen.survivorship))
    for loss in chosen.survivorship.losses:
        say(shift(chosen.survivorship, loss.config))
    for draw in chosen.draws:
        say(f"{draw.config}: {draw.drawn} of {draw.survivors} surviving prompts drawn, {draw.wanted} wanted")
    if chosen.short:
        note(chosen.short)


def survivorship_table(found: "Survivorship") -> Table:
    """Which prompts each check takes from each configuration."""
    checks = sorted({name for loss in found.losses for name in loss.taken})
    table = figures("", *(loss.config for loss in found.losses), title="prompts lost to each check (to no other)")
    table.add_row("prompts", *(str(loss.prompts) for loss in found.losses))
    table.add_row("survive", *(str(loss.survivors) for loss in found.losses))
    for name in checks:
        table.add_row(name, *(f"{loss.taken.get(name, 0)} ({loss.alone.get(name, 0)})" for loss in found.losses))
    return table


def shift(found: "Survivorship", config: str) -> str:
    """Where the survivors' mixture differs most from the prompts'."""
    own = [bias for bias in found.biases if bias.config == config]
    most = max(own, key=lambda bias: abs(bias.difference), default=None)
    if most is None or not most.difference:
        return f"{config}: the survivors are mixed as the prompts are"
    p = next(item.p for item in found.dependences if (item.config, item.dimension) == (config, most.dimension))
    words = "" if p is None else f"; p = {p:.2g} if survival did not depend on the {most.dimension}"
    return (
        f"{config}: {most.dimension} {most.value or 'bare'} is {100 * most.before:.0f} % of the prompts and "
        f"{100 * most.after:.0f} % of the survivors{words}"
    )
