"""What is installed, what is missing for which stage, and what else is there. Run it with `saferthoughts doctor`.

Reads the environment and pyproject.toml, and writes nothing. Endpoints are tried only where they are on this machine.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from rich.table import Table
from rich.text import Text

from pipelines.settings.teacher import Teacher, load_teachers

# Stage -> its extra; pyproject.toml says which packages that is.
NEEDS = {
    "prompts, check, select": "",
    "generate, judge, repair": "generate",
    "release": "release",
    "release sign": "sign",
    "train": "train",
    "eval": "eval",
    "judge distill, local judges": "local",
    "duplicates, contamination, report": "curate",
    "review": "review",
    "serve": "serve",
    "cluster": "ray",
    "study --cluster": "slurm",
    "tests": "dev",
}
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination: what was looked at, whether it is there, and what to tell."""

    thing: str
    there: bool
    state: str


def findings() -> list[Finding]:
    """Every line of the examination, packages first."""
    return [*(_stage(stage) for stage in NEEDS), _gpu(), _sandbox(), _browser(), _hub_token(), *_teachers()]


def examine() -> Table:
    """The findings as a table."""
    table = Table("", "what", "found", box=None, header_style="bold")
    for item in findings():
        # As text: Rich would take the brackets of an extra for markup.
        table.add_row("yes" if item.there else "no", Text(item.thing), Text(item.state))
    return table


def packages(extra: str) -> list[str]:
    """The packages that an extra asks for, in pyproject's order; "" for what every stage needs. One extra may hold
    others, whose packages count as its own."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found = []
    for line in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        name, extras = _REQUIREMENT.match(line).groups()  # type: ignore[union-attr]
        if name == project["name"]:
            found += [package for inner in extras.split(",") for package in packages(inner.strip())]
        else:
            found.append(name)
    return list(dict.fromkeys(found))


_REQUIREMENT = re.compile(r"\s*([\w.-]+)(?:\[([^\]]*)\])?")


def _stage(stage: str) -> Finding:
    extra = NEEDS[stage]
    versions, missing = [], []
    for package in packages(extra):
        try:
            versions.append(f"{package} {_version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        install = f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "make demo"
        return Finding(stage, False, f"missing {', '.join(missing)}; {install}")
    return Finding(stage, True, ", ".join(versions))


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _gpu() -> Finding:
    command = shutil.which("nvidia-smi")
    if command is None:
        return Finding("GPU", False, "none seen; the demo and its student need none")
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", False, f"nvidia-smi does not answer: {error}")
    names = [line.split(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU")]
    return Finding("GPU", bool(names), "; ".join(names) or "nvidia-smi lists none")


def _sandbox() -> Finding:
    command = shutil.which("bwrap")
    return Finding("bubblewrap", command is not None, command or "runs code of evaluations; apt install bubblewrap")


def _browser() -> Finding:
    command = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Finding("browser", command is not None, command or "only tests of pages need one; apt install chromium")


def _hub_token() -> Finding:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    there = bool(os.environ.get("HF_TOKEN")) or (home / "token").exists()
    return Finding("Hub token", there, "set" if there else "needed to publish only; HF_TOKEN, or `hf auth login`")


def _teachers() -> list[Finding]:
    return [teacher_finding(name, entry) for name, entry in load_teachers().items()]


def teacher_finding(name: str, teacher: Teacher) -> Finding:
    """Whether an entry's key is set, and whether a server on this machine answers."""
    thing = f"teacher {name}"
    if teacher.embedded:
        return Finding(thing, True, f"{teacher.model}, embedded")
    if teacher.api_key_env is not None:
        there = bool(os.environ.get(teacher.api_key_env))
        return Finding(thing, there, f"{teacher.model}, {teacher.api_key_env} {'is set' if there else 'is not set'}")
    if not teacher.urls or any(urlsplit(url).hostname not in ("127.0.0.1", "localhost") for url in teacher.urls):
        return Finding(thing, True, f"{teacher.model}, {teacher.place}; not tried")
    silent = [url for url in teacher.urls if not _answers(url)]
    state = f"nothing answers at {', '.join(silent)}" if silent else f"answers at {teacher.place}"
    return Finding(thing, not silent, state)


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/models", timeout=2):
            return True
    except (URLError, OSError):
        return False


@dataclass(frozen=True, slots=True)
class ListedTeacher:
    """A teacher by name; `key` is the variable that holds its key, None where it needs none, and whether it is set."""

    name: str
    model: str
    endpoint: str
    key: str | None
    key_set: bool | None


def listed_teachers(extra: Path | None = None) -> list[ListedTeacher]:
    """Every teacher, those of a file of one's own among them."""
    return [
        ListedTeacher(name, entry.model, entry.place, key, None if key is None else bool(os.environ.get(key)))
        for name, entry in load_teachers(extra).items()
        for key in (entry.api_key_env,)
    ]


def teacher_table(teachers: Sequence[ListedTeacher]) -> Table:
    """Every teacher by name: model, endpoint, key."""
    table = Table("name", "model", "endpoint", "key", box=None, header_style="bold")
    for one in teachers:
        key = "none needed" if one.key is None else f"{one.key} ({'set' if one.key_set else 'not set'})"
        table.add_row(*(Text(cell) for cell in (one.name, one.model, one.endpoint, key)))
    return table
