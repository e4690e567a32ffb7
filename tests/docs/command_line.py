"""Whether a command line is one that this project understands, found out without running it.

`saferthoughts` lines go through the real command line's own parser; the names that it takes as plain text (teachers,
recipes, judges, tasks ...) are looked up where the commands look them up. Benchmarks are asked for their options.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import typer

from pipelines.errors import UserError
from tests.docs.pages import ROOT

# What a page says where its reader puts a name of their own.
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_/@.]*|\.\.\.")


def understood(text: str, own_names: Iterable[str] = (), whole: bool = True) -> None:
    """Check a command line; programs that are not ours are taken as they are.

    Args:
        text: One line, comments allowed.
        own_names: Names that the page defines itself: teachers, judges.
        whole: Whether all that the command requires must be there.

    Raises:
        AssertionError: it is not understood, with the reason.
    """
    words = shlex.split(text, comments=True)
    starts = [
        at for at, word in enumerate(words) if word == "saferthoughts" and (at == 0 or words[at - 1] in ("-m", "|"))
    ]
    if starts:
        _ours(words[starts[0] + 1 :], frozenset(own_names), whole)
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        _benchmark(words[2], words[3:])
    elif words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= {*targets, *(word for word in words if "=" in word)}, text
    elif words[0] == "pip":
        _installs(words)
    for word in words:
        if re.fullmatch(r"training/[\w./-]+\.yaml", word):
            assert (ROOT / word).exists(), f"{word} is not there"


@cache
def _front_door() -> Any:
    from saferthoughts.cli.app import app

    return typer.main.get_command(app)


def _ours(words: Sequence[str], own: frozenset[str], whole: bool) -> None:
    command, parent, name, rest = _front_door(), None, "saferthoughts", list(words)
    try:
        while rest or whole:
            # Resilient parsing misses nothing that is left out, but still knows every option.
            context = command.make_context(name, rest, parent=parent, resilient_parsing=not whole)
            _values(name, context.params, own)
            rest = [*context._protected_args, *context.args]
            if not hasattr(command, "commands"):
                assert not rest, f"nothing takes {' '.join(rest)}"
                return
            if not rest:
                return
            name, command, rest = command.resolve_command(context, rest)
            parent = context
    except typer.Exit:
        return  # --help
    except typer.TyperException as error:
        raise AssertionError(f"saferthoughts {shlex.join(words)}: {error.format_message()}") from error
    except (UserError, AssertionError) as error:
        raise AssertionError(f"saferthoughts {shlex.join(words)}: {error}") from error


@cache
def _known() -> dict[str, frozenset[str]]:
    """The names that each option or argument may have, where the command line itself takes any text."""
    from eval.suites import SUITES, TASKS
    from pipelines.prompts.variant import load_variants
    from pipelines.settings.judge import load_judges
    from pipelines.settings.teacher import load_teachers
    from training.recipes.recipe import recipe_names

    teachers = frozenset(load_teachers())
    judges = frozenset(load_judges())
    asked = teachers | judges | {"rules"}
    return {
        **dict.fromkeys(("teacher", "general_teacher"), teachers),
        **dict.fromkeys(("judges", "guard", "judge", "attacker"), asked),
        "variants": frozenset(load_variants()),
        "recipe": frozenset(recipe_names()),
        "suite": frozenset(SUITES),
        "tasks": frozenset(TASKS),
        "strategy": frozenset({"instruct", "resample", "edit", "escalate"}),
        "vote": frozenset({"majority", "any", "all"}),
        "role": frozenset({"read", "run", "publish"}),
        "against": frozenset({"truth", "examples"}),
    }


def _values(command: str, given: dict[str, Any], own: frozenset[str]) -> None:
    for name, value in given.items():
        if name == "against" and command != "score":
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            one = str(one).rpartition("=")[2] if name == "judge" and one is not None else one  # TASK=NAME
            if name == "judges" and str(one).startswith("local:"):
                continue  # a folder
            one = str(one).rpartition(",")[2] if str(one).startswith("cascade:") else one  # cascade:FOLDER,NAME
            known = _known().get(name)
            if known is None or one is None or one in known | own or _PLACEHOLDER.fullmatch(str(one)):
                continue
            a_file = name == "recipe" and str(one).endswith(".yaml")
            assert a_file, f"{command}: there is no {name} '{one}'"


def _installs(words: Sequence[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in words:
        if match := re.fullmatch(r"\.\[([\w,]+)\]", word):
            assert set(match.group(1).split(",")) <= set(extras), f"{shlex.join(words)}: no such extra"


@cache
def _options(module: str) -> str:
    asked = [sys.executable, "-m", module, "--help"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _benchmark(module: str, words: Sequence[str]) -> None:
    assert find_spec(module), f"there is no {module}"
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{word}\b", _options(module)), f"{module} has no option {word}"
