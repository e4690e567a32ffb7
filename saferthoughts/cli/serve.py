"""Commands of the service: `saferthoughts serve`, `serve token add|list|revoke`.

Serves until Ctrl-C; runs that are under way go on without it, and are found again by the next call.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from saferthoughts.cli.options import Settings, Stages, group, note, out, say

serve_app = typer.Typer(
    cls=Stages,
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serve a web page and an HTTP API for the stages.",
)
token_app = group("Who may use the service: add, list, revoke.")
serve_app.add_typer(token_app, name="token")


@serve_app.callback()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8300,
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate, for other addresses than loopback.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Listen behind a proxy that handles TLS.")
    ] = False,
    hostname: Annotated[
        list[str] | None, typer.Option(help="A host name under which it is reached; repeatable.")
    ] = None,
    teachers: Annotated[Path | None, typer.Option(help="Your own teachers.yaml, whose names requests may use.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A folder of prompt sets, whose names requests may use.")] = None,
    recipes: Annotated[Path | None, typer.Option(help="A folder of recipes, whose names requests may use.")] = None,
    students: Annotated[
        Path | None, typer.Option(help="A folder of checkpoints, whose names requests may use.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, max=64, help="Jobs to run at once; 0 holds all of them back.")] = 2,
    rate: Annotated[float, typer.Option(min=1, help="Sustained requests a second for each caller.")] = 100.0,
) -> None:
    """Serve the API and the page until Ctrl-C, on this machine only unless told otherwise.

    Example: saferthoughts serve --port 8300 --teachers my-teachers.yaml
    """
    if context.invoked_subcommand is not None:
        return
    from service.app_state import ServeSettings
    from service.running import run

    settings = ServeSettings(
        runs=Settings.runs,
        host=host,
        port=port,
        host_names=tuple(hostname or ()),
        secure=behind_proxy or certfile is not None,
        behind_proxy=behind_proxy,
        teachers=teachers,
        prompts=prompts,
        recipes=recipes,
        students=students,
        most_jobs=jobs,
        rate_per_s=rate,
    )
    run(settings, certfile, keyfile, say)


@token_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of its user.", metavar="NAME")],
    role: Annotated[str, typer.Option(help="read, run or publish; each includes the ones before it.")] = "read",
    days: Annotated[float | None, typer.Option(min=0, help="Days of validity; unlimited if not given.")] = None,
) -> None:
    """Make a token and show it, once.

    Example: saferthoughts serve token add ci --role run --days 30
    """
    secret = _tokens().add(name, role, days)
    say(secret)
    note("This is shown once. Send it as: Authorization: Bearer TOKEN")


@token_app.command(name="list")
def list_tokens() -> None:
    """Every token by name, with its role and how long it is valid."""
    table = Table("name", "role", "made", "valid until", box=None)
    for token in _tokens().listed():
        until = "for ever" if token.expires is None else _day(token.expires) + (" (expired)" if token.expired else "")
        table.add_row(Text(token.name), token.role, _day(token.created), until)
    out.print(table)


@token_app.command()
def revoke(name: Annotated[str, typer.Argument(help="A name of `serve token list`.", metavar="NAME")]) -> None:
    """Make a token and its sessions worthless, from now on."""
    _tokens().revoke(name)
    say(f"{name} is revoked.")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _tokens() -> Any:
    from service.http.tokens import Tokens
    from service.store import Store

    return Tokens(Store(Settings.runs))
