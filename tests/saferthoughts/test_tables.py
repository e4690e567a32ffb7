"""What commands print at their end and beside it: tables whose words are whole, and what comes next."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.table import Table
from rich.text import Text

from pipelines.progress import plain_console
from saferthoughts.cli.app import app
from saferthoughts.cli.next_steps import NEXT, next_step
from tests.commands import command

# Each prints at least one table of the shared run, or of what is shipped.
TABLES = [
    ("status",),
    ("ledger", "show", "small"),
    ("judge", "score", "small"),
    ("judge", "list"),
    ("teachers", "list"),
    ("teachers", "test", "rehearsal"),
    ("reward", "check"),
    ("doctor",),
    ("sql", "small", "select response_id, reasoning, answer from responses limit 3"),
    ("check", "small", "--only", "refusal_missing"),
]
_RULED = re.compile(r"[─━]+")


def printed(words: tuple[str, ...], runs: Path, columns: int | None) -> str:
    """What a command prints to a pipe, or to something as wide as a terminal of so many columns."""
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    width = {} if columns is None else {"COLUMNS": str(columns)}
    done = command(["--runs", str(runs), *words], runs.parent, {**kept, **width})
    assert done.returncode == 0, done.stderr
    return _RULED.sub("", done.stdout)


@pytest.mark.parametrize("words", TABLES, ids=" ".join)
def test_no_word_of_a_table_is_cut_or_broken(words: tuple[str, ...], released_once: Path) -> None:
    runs = released_once.parent
    whole, narrow = (
        # Times and free ports differ from call to call; a head before its cell ends in a colon.
        {word.rstrip(":") for word in printed(words, runs, width).split() if not re.search(r"\d\.\d|:\d{4,}/", word)}
        for width in (None, 80)
    )
    assert len(whole) > 5
    assert {word for word in whole if len(word) < 78} <= narrow


def a_table() -> Table:
    table = Table("run", "what it waits for", title="a title that is wider than such a table is", box=None)
    table.add_row(Text("mine"), "judging by deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    table.add_row("yours", "")
    return table


def test_a_table_takes_its_room_then_wraps_then_is_stacked(tmp_path: Path) -> None:
    def at(width: int | None) -> list[str]:
        with (tmp_path / "printed").open("w+") as file:
            plain_console(file=file, width=width).print(a_table())
            file.seek(0)
            return [line.rstrip() for line in file.read().splitlines()]

    assert at(None)[2].split() == ["mine", "judging", "by", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
    wrapped = at(60)
    assert wrapped[0].strip() == "a title that is wider than such a table is"
    assert any("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B" in line for line in wrapped)
    assert at(45) == [
        "a title that is wider than such a table is",
        "run: mine",
        "  what it waits for: judging by",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "run: yours",
    ]


def commands_of(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands_of(one, (*before, name))
        else:
            yield " ".join((*before, name)), one


def test_every_command_says_what_comes_next() -> None:
    commands = dict(commands_of(typer.main.get_command(app)))
    assert set(NEXT) == set(commands), "saferthoughts/cli/next_steps.py names every command, and no other"
    for name, one in commands.items():
        arguments = {option.name: "x" for option in one.params if option.name in ("name", "what", "repo", "to")}
        if "{waits}" not in NEXT[name]:
            next_step(name, {option.name: None for option in one.params} | arguments, Path("runs"))


def test_a_stage_names_its_file_and_the_next_command(released_once: Path, tmp_path: Path) -> None:
    words = ["--runs", "runs", "prompts", "mine", "--teacher", "rehearsal", "--harmful", "1", "--benign", "1"]
    done = command(words, tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "Written: runs/mine/run.yaml and prompts.parquet. mine waits for responses: saferthoughts --runs runs run mine"
    )
    shown = command([*words[:3], "mine", "--json"], tmp_path)
    assert "Written" not in shown.stderr
    whole = command(["--runs", str(released_once.parent), "report", "small"], tmp_path)
    assert "saferthoughts --runs" in whole.stderr
    assert f"train RECIPE --dataset {released_once}/release" in whole.stderr
    assert "Cohen's kappa, with intervals." in command(["judge", "--help"]).stdout
