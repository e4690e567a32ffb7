"""Commands of people's review: `saferthoughts review serve|push|status|pull|agree|apply`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipelines.errors import UserError
from saferthoughts.cli.options import AsJson, RunName, Settings, figures, group, note, open_run, out, say, say_json

if TYPE_CHECKING:
    from curation.review.evidence import Outlook
    from curation.review.status import ReviewProgress
    from saferthoughts.review import AnswerReview, Review

review_app = group("People's spot checks in Argilla: serve, push, status, pull, agree, apply.")
MaybeRun = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Name of the run: a folder under --runs.", show_default=False)
]
Evaluation = Annotated[
    Path | None, typer.Option("--eval", help="A folder with results.json instead of a run: vote on its answers.")
]
Workspace = Annotated[str | None, typer.Option(help="For a server of your own: its workspace.")]


@review_app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 6900,
    annotators: Annotated[int, typer.Option(min=1, max=50, help="Least number of accounts for people.")] = 2,
) -> None:
    """Run an Argilla server on this machine until Ctrl-C; needs nothing installed. Data stay in RUNS/.argilla.

    Example: saferthoughts review serve
    """
    from curation.review.home import home_of
    from curation.review.serve import serving

    home = home_of(Settings.runs)
    with serving(home, port, annotators, note) as running:
        say(f"Argilla runs at {running.url} (started in {running.seconds:.0f} s). Ctrl-C stops it.")
        for account in running.new_accounts:
            say(f"  new account: {account['username']}, password {account['password']}")
        say(f"Accounts and keys are in {home / 'credentials.json'}, which only you can read.")
        while not running.ended():
            time.sleep(0.5)
    raise UserError(
        f"The Argilla server has ended. Why is in {home / 'server.log'}; start it again with the same command."
    )


@review_app.command()
def push(
    name: MaybeRun = None,
    evaluation: Evaluation = None,
    votes: Annotated[
        int | None, typer.Option(min=1, help="A budget of votes, spent on what narrows the share of unsafe rows most.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Without a budget: rows to sample (200), half of them doubtful ones.")
    ] = None,
    random_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --rows: share drawn at random from all rows (0.5).")
    ] = None,
    min_votes: Annotated[int | None, typer.Option(min=1, max=20, help="Votes that each row needs (1).")] = None,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of rows with one additional vote (0.2; with a budget 0.1)."),
    ] = None,
    assist: Annotated[
        bool, typer.Option("--assist/--blind", help="Show the judges' labels; such votes never score the judges.")
    ] = False,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", help="A file of response_ids, one a line: these rows, outside the sample and its rates."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Send rows to Argilla, for a budget of votes in rounds: once more goes on. Sends what is not there yet.

    Example: saferthoughts review push demo --votes 100
    """
    given: dict[str, Any] = {"votes": votes, "min_votes": min_votes}
    if evaluation is None:
        given |= {"rows": rows, "random_share": random_share, "overlap": overlap, "assist": assist}
        given["ids"] = None if ids is None else _ids_in(ids)
    elif rows is not None or random_share is not None or overlap is not None or assist or ids:
        raise UserError("--eval takes --votes, --min-votes and --workspace: its answers are drawn blind.")
    review = _review_of(name, evaluation, workspace)
    done = review.push(**given)
    if as_json:
        say_json(done)
        return
    if done.words:
        say(done.words)
    say(f"{done.rows} rows in the sample, {done.sent} sent now, to {', '.join(done.datasets)} at {review.url}")
    if done.deleted:
        note(f"{done.deleted} rows were sent before and are not on the server any more; they are not sent again.")


def _ids_in(file: Path) -> list[str]:
    """The lines of a file of ids.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    try:
        found = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--ids {file} cannot be read ({error}). Give a text file with one response_id a line."
        ) from error
    if not found:
        raise UserError(f"--ids {file} holds no id. Give a text file with one response_id a line.")
    return found


def _review_of(name: str | None, evaluation: Path | None, workspace: str | None) -> "Review | AnswerReview":
    """The votes of a run, or of an evaluation.

    Raises:
        UserError: both are named, or neither.
    """
    from saferthoughts.review import AnswerReview

    if (name is None) == (evaluation is None):
        raise UserError("Whose rows? Name a run, or an evaluation: --eval FOLDER (one of the two).")
    if evaluation is not None:
        return AnswerReview(evaluation, runs=Settings.runs, workspace=workspace)
    return open_run(name or "").review(workspace=workspace)


@review_app.command()
def status(
    name: MaybeRun = None, evaluation: Evaluation = None, workspace: Workspace = None, as_json: AsJson = False
) -> None:
    """How far people have got, who votes unlike the others, how many votes more are likely needed."""
    review = _review_of(name, evaluation, workspace)
    found, outlook = review.progress(), review.outlook()
    if as_json:
        say_json({"datasets": found, "outlook": outlook})
        return
    for one in found:
        _say_progress(one)
    if outlook:
        say(_outlook_words(outlook))


def _say_progress(one: "ReviewProgress") -> None:
    left = "" if one.left_s is None else f", about {one.left_s / 60:.0f} minutes left at {one.seconds_each:.0f} s a row"
    say(f"{one.dataset}: {one.completed} of {one.total} rows have their votes{left}")
    for annotator, count in one.by_annotator.items():
        words = [f"  {annotator}: {count} submitted, {one.waiting[annotator]} left"]
        if wrong := one.contradictory.get(annotator, 0):
            words.append(f"{wrong} of them contradict themselves")
        if annotator in one.far:
            apart, shared = one.far[annotator]
            words.append(f"far from the others on safety: apart from one of them on {apart} of {shared} rows")
        say(", ".join(words))


@review_app.command()
def pull(
    name: MaybeRun = None,
    evaluation: Evaluation = None,
    workspace: Workspace = None,
    then_agree: Annotated[
        bool, typer.Option("--agree", help="For a run: evaluate the votes at once, as `review agree` does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch people's votes into reviews.parquet; names stay on the server.

    Example: saferthoughts review pull demo
    """
    if then_agree and name is None:
        raise UserError("--agree is of a run's votes; those of an evaluation are evaluated by: report eval FOLDER")
    done = _review_of(name, evaluation, workspace).pull()
    if then_agree and name is not None and done.votes:
        open_run(name).review().agree()
    if as_json:
        say_json(done)
        return
    say(f"{done.votes} votes by {done.annotators} people, {done.new} new, {done.changed} changed")
    beside = (
        (done.kept, "kept whose record or whose person is no longer on the server"),
        (done.taken_back, "taken back"),
        (done.contradictory, 'name a pattern beside "None of these" and say nothing on patterns until changed'),
    )
    for count, what in beside:
        if count:
            say(f"  {count} {what}")


@review_app.command()
def agree(
    name: RunName,
    max_error: Annotated[
        float | None, typer.Option(help="Largest share of errors, such as 0.02, at which judges may decide rows alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How far people agree, how good the judges are, how much of the accepted set is unsafe.

    Example: saferthoughts review agree demo --max-error 0.02
    """
    found = open_run(name).review().agree(max_error)
    if as_json:
        say_json(found)
        return
    say(f"{found['votes']} votes by {found['annotators']} people on {found['rows']} rows")
    out.print(_agreement_table(found["agreement"]))
    out.print(_judges_table(found["judges"]))
    for one in found["by_config"]:
        shared = "" if one["percent"]["value"] is None else f", {_percent(one['percent'])} % agreement"
        say(f"{one['config']}: {one['unsafe_votes']} of {one['votes']} votes on {one['rows']} rows say unsafe{shared}")
    for one in found["deviation"]:
        differs = f"differs from the others' majority on {one['differs']} of {one['rows']} rows"
        say(f"{one['annotator']}: {differs}{_coin_words(found, one)}")
    share = found["unsafe_share"]
    if share["rate"] is None:
        say("Nobody has voted blind on an accepted row yet: the share of unsafe rows is not known.")
    else:
        say(
            f"unsafe among the accepted rows: {100 * share['rate']:.1f} % [{100 * share['low']:.1f}, "
            f"{100 * share['high']:.1f}], from {share['rows']} rows ({share['method']})"
        )
    if held := share["anytime"]:
        say(f"  at every look so far: between {100 * held['low']:.1f} and {100 * held['high']:.1f} %")
    for one in found["corrected"]:
        if one["rate"] is not None and one["judged"] is not None:
            span = f"{100 * one['rate']:.0f} % [{100 * one['low']:.0f}, {100 * one['high']:.0f}]"
            label = one["label"].replace("_", " ")
            say(f"{one['config']}, {label}: judges {100 * one['judged']:.0f} %, corrected {span}, {one['votes']} rows")
    if sure := found["confidence"]:
        off = _percent(sure["error"])
        say(f"judges' confidence: off by {off} % on average (expected calibration error), {sure['rows']} rows")
    if found["selective"]:
        say(_selective_words(found["selective"]))


def _coin_words(found: dict[str, Any], person: dict[str, Any]) -> str:
    """What the two-coin model says of a person, and whether it is no chance."""
    far = ", far from the others" if person["far"] else ""
    if (coins := found["coins"]) is None or person["annotator"] not in coins["sensitivity"]:
        return far
    seen, kept = (100 * coins[name][person["annotator"]] for name in ("sensitivity", "specificity"))
    return f"; two-coin model: {seen:.0f} % of unsafe and {kept:.0f} % of safe rows called so{far}"


def _selective_words(one: dict[str, Any]) -> str:
    bound = f"with at most {100 * one['max_error']:g} % of errors judges may decide"
    if one["threshold"] is None:
        why = f"{one['wrong']} of {one['checked']} held-out votes are wrong" if one["checked"] else "too few votes"
        return (
            f"{bound} no row alone: {why}; {one['needed']} held-out votes without a wrong one would do, of "
            f"{one['votes']} usable ones in all (three quarters are held out)"
        )
    share, left = f"{100 * one['alone'] / one['rows']:.0f} %", one["rows"] - one["alone"]
    return (
        f"{bound} {one['alone']} of {one['rows']} rows alone ({share}, confidence {one['threshold']:.2f} or more), and "
        f"{left} go to people: selective.parquet. Checked on {one['checked']} held-out votes: {one['wrong']} wrong, an "
        f"error of up to {100 * one['upper']:.1f} %"
    )


@review_app.command(name="apply")
def apply_votes(
    name: RunName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which rows would leave and come back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let people's majority overrule the judges, and check the run anew."""
    from saferthoughts.cli.words import words_of

    run = open_run(name)
    preview = run.review().preview() if dry_run else None
    if preview and as_json:
        say_json(preview)
        return
    done = preview.applied if preview else run.review().apply()
    checked = None if preview else run.check()
    if as_json:
        say_json(checked)
        return
    say(f"{done.rows} rows reviewed: {done.safe} safe, {done.unsafe} unsafe by majority, {done.ties} ties")
    if done.ties:
        say(f"Ties decide nothing; one more person is asked by: saferthoughts review push {name}")
    if preview:
        say(f"{preview.before} rows are accepted; {preview.after} would be. Nothing was changed.")
        for what, rows in (("leaves", preview.leaves), ("comes back", preview.returns)):
            for row in rows:
                say(f"  {what}: {row}")
    if checked:
        say(words_of(checked))


def _outlook_words(one: "Outlook") -> str:
    """What the votes that were pulled say of the gate's bound."""
    span = f"{one.votes} votes in the order of the draw: unsafe between {100 * one.low:.1f} and {100 * one.high:.1f} %"
    if one.bound is None:
        return f"{span}; no bound is set (release.requires.unsafe_upper_bound)"
    bound = f"the bound of {100 * one.bound:g} %"
    if one.below is not None:
        return f"{span}: {'below' if one.below else 'above'} {bound}, no more votes are needed for it"
    more = "more votes than there are rows" if one.more is None else f"about {one.more} more votes"
    return f"{span}; likely {more} until {bound} is decided"


def _agreement_table(lines: list[dict[str, Any]]) -> Table:
    columns = ("question", "rows", "several votes", "percent", "kappa", "alpha")
    table = figures(*columns, title="agreement among people")
    for line in lines:
        if line["rows"]:
            rates = (_percent(line[name]) for name in ("percent", "kappa", "alpha"))
            table.add_row(Text(line["question"]), str(line["rows"]), str(line["rows_with_several"]), *rates)
    return table


def _judges_table(lines: list[dict[str, Any]]) -> Table:
    columns = ("label", "rows", "precision", "recall", "F1", "kappa")
    table = figures(*columns, title="judges against people, weighted, percent with 95 % intervals")
    for line in lines:
        if line["n"]:
            rates = (_percent(line[name]) for name in ("precision", "recall", "f1", "kappa"))
            table.add_row(line["label"], str(line["n"]), *rates)
    return table


def _percent(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "-"
    if figure["low"] is None or figure["high"] is None:
        return f"{100 * figure['value']:.0f}"
    return f"{100 * figure['value']:.0f} [{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]"
