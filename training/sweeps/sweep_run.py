"""Training a sweep's members one after another, each in its own process; finished members are skipped.

Writes

    <output>/
      <member>/            the model, as `training.stage` leaves it
      recipes/<member>.yaml   its recipe, as resolved
      logs/<member>.txt    what its process said
      results.json  results.md   every member: trained, failed with its reason, or waiting; losses, pace and scores

A member that fails does not stop the others. Stopped or killed, the same command goes on, within the member that was at
work too. Scores are those that `saferthoughts eval <output>/<member>` left: run the sweep again to have them in the
tables. Run with `saferthoughts train --sweep FILE --output FOLDER`.
"""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cards.card.model_card import RECORD
from cards.hub.pull import opened
from pipelines.command_line import typed_command
from pipelines.errors import Interrupted, UserError
from pipelines.interrupts import unhurried
from pipelines.progress import console
from pipelines.runs import write_json, write_text
from pipelines.teachers.server_process import kept
from training.stage import is_trained
from training.sweeps.sweep import Member, shown

# A member that is asked to stop ends its step and saves a checkpoint.
_GRACE_S = 600
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Score:
    """A task's rate with its interval, over n answers; no rate where not one of them has a verdict."""

    rate: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class MemberOutcome:
    """The outcome of a member. Losses, pace and seconds are None until it is trained."""

    name: str
    grids: Mapping[str, Mapping[str, Any]]
    state: Literal["trained", "failed", "waiting"]
    reason: str = ""
    rows: int | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    trained_tokens_per_s: float | None = None
    seconds: float | None = None
    scores: Mapping[str, Score] | None = None


def run_sweep(
    members: Sequence[Member], output: Path, launcher: Sequence[str], report: Callable[[str], None]
) -> list[MemberOutcome]:
    """Train every member that is not trained yet.

    Args:
        launcher: What runs a Python module: accelerate's command, or the interpreter.
        report: Called with a line for each member that ends.

    Raises:
        Interrupted: somebody stopped it; the same command goes on.
        UserError: the dataset is not there.
    """
    releases = {name: opened(name, report) for name in {str(member.recipe.dataset) for member in members}}
    members = [_where_it_is(member, output) for member in members]
    outcomes = {member.name: MemberOutcome(member.name, member.grids, "waiting") for member in members}
    output.mkdir(parents=True, exist_ok=True)
    for number, member in enumerate(members, 1):
        folder = output / member.name
        there = _is_trained(member, releases[str(member.recipe.dataset)], folder)
        reason = "" if there else _train(member, output, launcher)
        outcomes[member.name] = _outcome(member, folder, reason)
        state = reason or ("is trained already" if there else "trained")
        report(f"{number}/{len(members)} {member.name}: {state}")
        write_results(list(outcomes.values()), output)
    return list(outcomes.values())


def _where_it_is(member: Member, output: Path) -> Member:
    """The member under the name of its folder, which a sweep of before may have called otherwise."""
    moved = not (output / member.name).exists() and (output / member.older).exists()
    return replace(member, name=member.older) if moved else member


def _is_trained(member: Member, release: Path, folder: Path) -> bool:
    try:
        return is_trained(member.recipe, release, folder)
    except UserError:
        # Told by its own process, and kept with its reason.
        return False


def _train(member: Member, output: Path, launcher: Sequence[str]) -> str:
    """Run one member; why it failed, "" if it did not."""
    recipe = output / "recipes" / f"{member.name}.yaml"
    write_text(recipe, member.recipe.to_yaml())
    command = [*launcher, "-m", "saferthoughts", "train", str(recipe), "--output", str(output / member.name)]
    log = output / "logs" / f"{member.name}.txt"
    log.parent.mkdir(exist_ok=True)
    # The keeper ends the member when this process is gone: two of them would train the same model otherwise.
    last = ""
    with (
        unhurried(),
        log.open("w", encoding="utf-8") as log_file,
        subprocess.Popen(
            [*kept(_GRACE_S), *command],
            stdout=log_file,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as child,
    ):
        for line in _lines(child):
            log_file.write(line)
            log_file.flush()
            last = line.strip() or last
            if line.startswith("train: "):
                console.print(f"{member.name}: {line.strip()}", markup=False, highlight=False, soft_wrap=True)
    if child.returncode == _INTERRUPTED:
        raise Interrupted(f"Stopped within {member.name}. Go on there with: {typed_command()}")
    if child.returncode == 0:
        return ""
    return last.removeprefix("saferthoughts: ") or f"ended with {child.returncode}; see {log}"


def _lines(child: "subprocess.Popen[str]") -> Iterator[str]:
    """A member's output, line by line; Ctrl-C is passed on, so that it saves a checkpoint."""
    assert child.stderr is not None
    while True:
        try:
            yield from child.stderr
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
        else:
            return


def _outcome(member: Member, folder: Path, reason: str) -> MemberOutcome:
    if reason:
        return MemberOutcome(member.name, member.grids, "failed", reason)
    facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return MemberOutcome(
        name=member.name,
        grids=member.grids,
        state="trained",
        rows=facts["supervision"]["rows"],
        first_loss=facts["loss"][0],
        last_loss=facts["loss"][-1],
        trained_tokens_per_s=facts["trained_tokens_per_s"],
        seconds=facts["seconds"],
        scores=_scores(folder / "eval" / "results.json"),
    )


def _scores(path: Path) -> dict[str, Score]:
    """Rates by task, where an evaluation left any; groups within a task are left out."""
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))["rates"]
        whole = [one for one in rates if not one["group"]]
        return {one["task"]: _known(one) for one in whole}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _known(rate: Mapping[str, Any]) -> Score:
    interval = rate["rate"]
    share = interval["rate"] if rate["hits"] + rate["misses"] > 0 else None
    return Score(share, interval["low"], interval["high"], rate["n"])


def write_results(outcomes: Sequence[MemberOutcome], output: Path) -> None:
    """Write results.json and results.md."""
    write_json(output / "results.json", [asdict(one) for one in outcomes])
    names, lines = table_of(outcomes)
    rule = "|".join(["---"] * len(names))
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    write_text(output / "results.md", "\n".join([f"| {' | '.join(names)} |", f"|{rule}|", *rows, ""]))


def table_of(outcomes: Sequence[MemberOutcome]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and, grid by grid, the cells of each member."""
    tasks = list(dict.fromkeys(task for one in outcomes for task in one.scores or {}))
    names = ["grid", "values", "rows", "first loss", "last loss", "trained tokens/s", *tasks, "state"]
    lines = []
    for grid in dict.fromkeys(grid for one in outcomes for grid in one.grids):
        for one in outcomes:
            if grid not in one.grids:
                continue
            values = ", ".join(f"{key}={shown(value)}" for key, value in one.grids[grid].items())
            figures = [_figure(one.rows, "d"), _figure(one.first_loss, ".2f"), _figure(one.last_loss, ".2f")]
            figures.append(_figure(one.trained_tokens_per_s, ".0f"))
            scores = [_score((one.scores or {}).get(task)) for task in tasks]
            state = f"{one.state}: {one.reason}" if one.reason else one.state
            lines.append([grid, values, *figures, *scores, state])
    return names, lines


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _score(score: Score | None) -> str:
    if score is None:
        return ""
    if score.rate is None:
        return f"no verdict of {score.n}"
    return f"{100 * score.rate:.0f} % [{100 * score.low:.0f}, {100 * score.high:.0f}] of {score.n}"
