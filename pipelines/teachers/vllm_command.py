"""The `vllm serve` command for a model: its reasoning parser, its length, and arguments of a user's own.

Reads `reasoning_parsers.yaml`; writes and starts nothing. Run it with `saferthoughts teachers serve MODEL`.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.errors import UserError
from pipelines.settings.overrides import Setting, key_and_value
from pipelines.settings.parts import Part, read_yaml, validated

HOST = "127.0.0.1"
PARSERS = Path(__file__).with_name("reasoning_parsers.yaml")
_EXAMPLE = "tensor-parallel-size=2"
_OPTION = re.compile(r"[a-z][a-z0-9._-]*")
# Options that would put the server where its health cannot be seen, out of this machine, or a key into a log.
_REFUSED = {
    "host": f"servers of ours bind {HOST}",
    "uds": f"servers of ours bind {HOST}",
    "headless": "a headless server answers nobody",
    "grpc": "teachers are asked over HTTP",
    "ssl-certfile": "servers of ours speak plain HTTP on this machine",
    "ssl-keyfile": "servers of ours speak plain HTTP on this machine",
    "api-key": "keys stand in the environment; vLLM reads VLLM_API_KEY",
}


class _Family(Part):
    family: str
    pattern: str
    parser: str | None
    args: tuple[str, ...] = ()


class _Parsers(Part):
    checked_with: str
    context_length: int
    families: tuple[_Family, ...]


@cache
def _parsers() -> _Parsers:
    return validated(_Parsers, read_yaml(PARSERS), PARSERS.name)


def _family(model: str) -> _Family | None:
    name = model.rstrip("/").rpartition("/")[2].lower()
    return next((family for family in _parsers().families if re.search(family.pattern, name)), None)


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """A `vllm serve` command: its words, none of which a shell reads, where it will answer, and what to know of it."""

    argv: tuple[str, ...]
    port: int
    note: str

    @property
    def base_url(self) -> str:
        """Where the server answers."""
        return f"http://{HOST}:{self.port}/v1"

    def line(self) -> str:
        """The command as one would type it into a shell."""
        return shlex.join(self.argv)


def serve_command(
    model: str,
    port: int,
    args: Sequence[str] = (),
    served_as: str | None = None,
    context_length: int | None = None,
) -> ServeCommand:
    """The command that serves `model`: a Hub id, or a folder with a checkpoint.

    Args:
        port: Where to answer, on 127.0.0.1.
        args: Further arguments of `vllm serve`; one that is ours by default takes its place.
        served_as: What requests call the model, where that is not `model`.
        context_length: Tokens of prompt and answer together; None for what suits the model's family.

    Raises:
        UserError: a name that vLLM would take for an option, or an argument that a server of ours cannot have.
    """
    if not model or model.startswith("-") or not model.isprintable() or model != model.strip():
        raise UserError(
            f"'{ascii(model)[1:-1]}' is no model's name: give a Hub id, such as Qwen/Qwen3-8B, or a folder."
        )
    if "\0" in "".join(args):
        raise UserError("An argument of vllm serve cannot hold a null character.")
    rest = _without_port(args)
    named = {_option_name(word) for word in rest if word.startswith("-")}
    for name in sorted(named & _REFUSED.keys()):
        raise UserError(f"vllm serve cannot have --{name} here: {_REFUSED[name]}. Leave it out.")
    family = _family(model)
    # Known families hold more than ours; of others nothing is known, and vLLM then takes what model and memory allow.
    length = context_length or (_parsers().context_length if family else "auto")
    ours = [f"--host={HOST}", f"--port={port}", f"--max-model-len={length}"]
    if served_as is not None and served_as != model:
        ours.append(f"--served-model-name={served_as}")
    if family is not None and family.parser is not None:
        ours += [f"--reasoning-parser={family.parser}", *family.args]
    kept = [word for word in ours if _option_name(word) not in named]
    return ServeCommand(("vllm", "serve", model, *kept, *rest), port, _note(family, "reasoning-parser" in named))


def _note(family: _Family | None, own_parser: bool) -> str:
    checked = f"checked with vLLM {_parsers().checked_with}"
    if own_parser:
        return "The reasoning parser is the one you named."
    if family is None:
        return (
            "No reasoning parser is known for this model, so none is set: what it thinks inside <think> tags is taken "
            f"apart here. Name another with --set reasoning-parser=NAME ({checked})."
        )
    if family.parser is None:
        return f"{family.family}: such models answer without reasoning, so no parser is set ({checked})."
    return f"{family.family}: reasoning parser {family.parser} ({checked})."


def _option_name(word: str) -> str:
    """`max-model-len` for `--max_model_len=5`: vLLM takes both spellings."""
    return word.lstrip("-").partition("=")[0].replace("_", "-")


def _without_port(args: Sequence[str]) -> list[str]:
    """The arguments without `--port N` and `--port=N`; the port is read beforehand, by `port_of`."""
    kept: list[str] = []
    skip = False
    for word in args:
        if skip:
            skip = False
        elif word == "--port":
            skip = True
        elif not word.startswith("--port="):
            kept.append(word)
    return kept


def port_of(args: Sequence[str]) -> int | None:
    """The port that the arguments name; None where they name none.

    Raises:
        UserError: it is no port.
    """
    value = None
    for index, word in enumerate(args):
        if word.startswith("--port="):
            value = word.removeprefix("--port=")
        elif word == "--port":
            value = args[index + 1] if index + 1 < len(args) else ""
    if value is None:
        return None
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise UserError(f"'{value}' is no port: --port takes a number from 1 to 65535.")
    return int(value)


def options_of(sets: Sequence[str]) -> tuple[str, ...]:
    """`key=value` settings as arguments of `vllm serve`: "tensor-parallel-size=2" as "--tensor-parallel-size=2".

    "true" and "false" make flags: `--key` and `--no-key`.

    Raises:
        UserError: a setting of another form, or one that has an option of its own here.
    """
    words = []
    for text in sets:
        # The value stays as typed: it is vLLM that reads it.
        key, value = key_and_value(text, example=_EXAMPLE)
        name = key.removeprefix("--").replace("_", "-")
        if not _OPTION.fullmatch(name):
            setting = Setting(key, None, value)
            raise UserError(f"{setting}: '{key}' is no option of vllm serve; one looks like --set {_EXAMPLE}.")
        if name == "port":
            raise UserError(f"Give the port as --port {value}, not with --set.")
        flags = {"true": f"--{name}", "false": f"--no-{name}"}
        words.append(flags.get(value.lower(), f"--{name}={value}"))
    return tuple(words)
