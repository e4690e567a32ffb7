"""What every command at the front door shares: groups, options, and how things are told.

Reads and writes nothing itself; `saferthoughts/cli/app.py` and `saferthoughts/cli/tools.py` hang their commands on it.
"""

import os
import shlex
import sys
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from pipelines.errors import UserError, unknown
from pipelines.progress import FILE_VARIABLE, console, plain_console
from pipelines.settings.keys import HIDDEN, begins_like_key
from saferthoughts.cli.next_steps import NEXT, next_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from pipelines.runs import RunFolder
    from pipelines.settings.changes import Consent
    from saferthoughts.run import Run

out = plain_console()
notes = console

_ORDER = list(dict.fromkeys(command.partition(" ")[0] for command in NEXT))


def _names(ctx: Any) -> list[str]:
    """The groups that lead to a command, without the program."""
    return [] if ctx.parent is None else [*_names(ctx.parent), ctx.info_name]


def _with_next_step(callback: "Callable[..., Any]", command: str) -> "Callable[..., Any]":
    """A command that says at its end where its result is and what usually comes next."""

    @wraps(callback)
    def run(**arguments: Any) -> None:
        callback(**arguments)
        # The last line of a job of the service is what came of it, and its page has what comes next.
        if FILE_VARIABLE not in os.environ and (words := next_step(command, arguments, Settings.runs, Settings.words)):
            note(words)

    return run


class Stages(TyperGroup):
    """A group of commands that tells an unknown one like every other bad name."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self._with_next_step: set[str] = set()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """What each command does, its first sentence whole: typer's own list cuts it at the end of a line."""
        commands = [
            (name, self.commands[name].get_short_help_str(formatter.width**2)) for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(commands)

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands in the order of work."""
        return sorted(self.commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        if cmd_name not in self.commands:
            raise unknown("stage" if ctx.parent is None else f"{ctx.info_name} command", cmd_name, self.commands)
        command: Any = super().get_command(ctx, cmd_name)
        if not hasattr(command, "commands") and cmd_name not in self._with_next_step:
            self._with_next_step.add(cmd_name)
            command.callback = _with_next_step(command.callback, " ".join([*_names(ctx), cmd_name]))
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words of the whole command, for a message that repeats it."""
        if ctx.parent is None:
            Settings.words = tuple(args)
        return list(super().parse_args(ctx, args))


class Shortened(Stages):
    """A group whose command `run` need not be named: `judge RUN` is `judge run RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name in where it was left out."""
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


def group(help_text: str, kind: type[Stages] = Stages, completion: bool = False) -> typer.Typer:
    """A group of commands that prints no local variables in its tracebacks."""
    return typer.Typer(
        cls=kind,
        no_args_is_help=True,
        add_completion=completion,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        # Typer's own tracebacks print local variables, and keys are among them.
        pretty_exceptions_enable=False,
        help=help_text,
    )


class Settings:
    """What the options before the command said."""

    runs = Path("runs")
    words: "tuple[str, ...]" = ()


def open_run(name: str) -> "Run":
    """A run under the folder that `--runs` names."""
    from saferthoughts.run import Run

    return Run.open(name, runs=Settings.runs)


def open_folder(name: str) -> "RunFolder":
    """The folder of a run under the folder that `--runs` names."""
    from pipelines.runs import RunFolder

    return RunFolder.open(Settings.runs, name)


def takes(*kinds: type[Any], without: tuple[str, ...] = ()) -> "Callable[[Callable[..., None]], Callable[..., None]]":
    """Give a command the options of some kinds of settings, which it gets as `**options` by their names in the API.

    What was left out is left out there too; `agree` is what `consent` makes of `--yes`.
    """
    names = {name: _SETTINGS[name] for kind in kinds for name in kind.__annotations__ if name not in without}

    def with_options(command: "Callable[..., None]") -> "Callable[..., None]":
        own = [one for one in signature(command).parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
        more = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=option)
            for name, option in names.items()
        ]

        @wraps(command)
        def called(**arguments: Any) -> None:
            options = {name: arguments.pop(name) for name in names}
            if "agree" in options:
                options["agree"] = consent(options["agree"])
            command(**arguments, **{name: value for name, value in options.items() if value not in (None, [], ())})

        called.__signature__ = Signature([*own, *more])  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in (*own, *more)}
        return called

    return with_options


def given(options: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Those options that are settings of one kind."""
    return {name: value for name, value in options.items() if name in kind.__annotations__}


def say(text: str) -> None:
    """A result, to stdout, as it is."""
    out.print(text, soft_wrap=True)


def say_json(result: object) -> None:
    """A result, to stdout, as JSON: the fields of its class in the Python API."""
    from saferthoughts.cli.json_words import json_of

    out.print(json_of(result), soft_wrap=True)


def show(result: Any, as_json: bool, table: "Callable[[Any], RenderableType] | None" = None) -> None:
    """A result, to stdout: in words or as a table, or as JSON."""
    from saferthoughts.cli.words import words_of

    if as_json:
        say_json(result)
    elif table is not None:
        out.print(table(result))
    else:
        say("\n".join(map(words_of, result if isinstance(result, list) else [result])))


def figures(*columns: str, names: int = 1, no_wrap: bool = False, **look: Any) -> Table:
    """A table without a frame: words in the first columns, numbers in the others."""
    table = Table(box=None, **look)
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at < names else "right", no_wrap=no_wrap)
    return table


def note(text: str) -> None:
    """What stands beside a result: to stderr, so that the result can be piped."""
    notes.print(text, soft_wrap=True)


def consent(yes: bool) -> "Consent":
    """Who agrees to what a change costs a run: `--yes`, or a person at the terminal."""

    def ask(cost: str) -> None:
        if yes:
            note(cost)
        elif sys.stdin.isatty() and sys.stderr.isatty():
            note(cost)
            if not typer.confirm("Change it?", err=True):
                raise UserError("Nothing was changed. Give a new run's name to keep this one as it is.")
        else:
            words = [HIDDEN if begins_like_key(word) else word for word in Settings.words]
            raise UserError(
                f"{cost} Nothing was changed. To change it: saferthoughts {shlex.join([*words, '--yes'])}; to keep it, "
                "give a new run's name."
            )

    return ask


def share_of(text: str) -> float:
    """A share from "5%" or "0.05".

    Raises:
        UserError: it is neither, or not between nothing and all.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"--max-failed takes a share between 0% and 100%, as 5% or 0.05; it got '{text}'.")
    return share


RunName = Annotated[str, typer.Argument(help="Name of the run: a folder under --runs.", metavar="RUN")]
ReleaseName = Annotated[
    str, typer.Argument(help="A release folder, or ORG/NAME@VERSION on the Hub.", metavar="RELEASE")
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="An endpoint instead of a named teacher.")]
ModelName = Annotated[str | None, typer.Option("--model", help="The model to ask for at --base-url.")]
KeyVariable = Annotated[str | None, typer.Option("--api-key-env", help="Environment variable with its key.")]
TeacherFile = Annotated[Path | None, typer.Option("--teachers", help="Your own teachers.yaml.")]
JudgeNames = Annotated[
    list[str] | None, typer.Option("--judge", help="Judge: a name of judges.yaml; repeat for several, which vote.")
]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Most US dollars for the run, all calls together.")]
MaxTokens = Annotated[int | None, typer.Option(min=0, help="Most tokens for the run, all calls together.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Any key of run.yaml, as key=value; repeatable.")]
Yes = Annotated[
    bool, typer.Option("--yes", help="Agree to a change that loses prompts or answers or replaces a teacher.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_PLACE = "FILE or OWNER/NAME[:CONFIG[:SPLIT]], with ?COLUMN=VALUE for some rows"
# The options that are settings of the API, by their names there (`saferthoughts/settings.py`).
_SETTINGS: dict[str, Any] = {
    "config": Annotated[Path | None, typer.Option("--config", help="A run.yaml with the initial settings.")],
    "prompts": Annotated[str | None, typer.Option(help="'bundled', a folder, or a file of prompts.")],
    "kind": Annotated[str | None, typer.Option(help="harmful or benign, for a file without a kind.")],
    "columns": Annotated[
        list[str] | None,
        typer.Option("--map", help="FIELD=COLUMN, for a file whose columns have other names; repeatable."),
    ],
    "harmful_file": Annotated[str | None, typer.Option(help=f"Harmful prompts as published: {_PLACE}.")],
    "templates_file": Annotated[str | None, typer.Option(help="The same for jailbreak templates.")],
    "benign_file": Annotated[str | None, typer.Option(help="The same for benign prompts.")],
    "harmful": Annotated[int | None, typer.Option(help="How many harmful prompts; all combinations if not given.")],
    "benign": Annotated[int | None, typer.Option(help="How many benign prompts; all if not given.")],
    "seed": Annotated[int | None, typer.Option(help="Seed of the draw.")],
    "variants": Annotated[list[str] | None, typer.Option("--variant", help="A variant to make; repeat for several.")],
    "teacher": Annotated[str | None, typer.Option(help="Teacher: a name of `teachers list`.")],
    "general_teacher": Annotated[str | None, typer.Option(help="Teacher for short and template.")],
    "teachers": TeacherFile,
    "base_url": BaseUrl,
    "model": ModelName,
    "api_key_env": KeyVariable,
    "teacher_name": Annotated[
        str | None, typer.Option("--name", help="Name of that teacher; the model's if not given.")
    ],
    "instructions": Annotated[
        list[str] | None,
        typer.Option("--instruction", help="An instruction for a variant, as VARIANT=FILE; repeatable."),
    ],
    "judges": JudgeNames,
    "settings": Sets,
    "agree": Yes,
    "max_cost": MaxCost,
    "max_tokens": MaxTokens,
    "max_failed": Annotated[
        float | None,
        typer.Option(
            parser=share_of,
            metavar="SHARE",
            help="Continue if at most this share is permanently refused, as 5% or 0.05.",
        ),
    ],
    "reuse": Annotated[list[str] | None, typer.Option(help="A run whose answers may be reused; repeatable.")],
    "engine": Annotated[str, typer.Option(help="local, or ray: on a cluster.")],
    "ray_address": Annotated[
        str | None, typer.Option(help="HOST:PORT or auto; a cluster on this machine if not given.")
    ],
    "allow_no_reasoning": Annotated[
        bool, typer.Option("--allow-no-reasoning", help="Continue with a teacher that shows no reasoning.")
    ],
}
_DEFAULTS: dict[str, Any] = {"engine": "local", "allow_no_reasoning": False, "agree": False}
