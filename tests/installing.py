"""A venv for an extra, with links to the packages that the extra asks for, and to no other.

What an extra asks for is taken from pyproject.toml and the metadata of what is installed here, all the way down, so
that nothing is downloaded and a package that is used and not asked for is not found.
"""

import csv
import importlib.metadata
import os
import subprocess
import sys
import tomllib
import venv
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def asked_for(extra: str) -> list[Requirement]:
    """What pyproject.toml lists for an extra, the base included."""
    return [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, [])]


def closure(extra: str) -> set[str]:
    """The names of all distributions that an extra brings.

    Raises:
        PackageNotFoundError: one is not installed here.
    """
    found: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in asked_for(extra)]
    while waiting:
        requirement, within = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": within}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in found:
                continue
            found.add((name, wanted))
            inner = (
                asked_for(wanted)
                if name == PROJECT["name"]
                else [Requirement(line) for line in importlib.metadata.requires(name) or ()]
            )
            waiting += [(each, wanted) for each in inner]
    return {name for name, _ in found} - {PROJECT["name"]}


@cache
def _files() -> dict[str, tuple[Path, list[str]]]:
    """Each distribution's site-packages and the paths that it has there."""
    found = {}
    for distribution in importlib.metadata.distributions():
        # Not `files`, whose objects take seconds to make for 80,000 lines.
        lines = csv.reader((distribution.read_text("RECORD") or "").splitlines())
        paths = [line[0] for line in lines if line and not line[0].startswith(("..", "/"))]
        found[canonicalize_name(distribution.name)] = (Path(str(distribution.locate_file(""))), paths)
    return found


def _folders(path: str) -> list[str]:
    """The folders that a path is in, the outermost first."""
    return [path[:at] for at, sign in enumerate(path) if sign == "/"]


@cache
def _owners() -> Counter[str]:
    """How many distributions have something under each folder: one that several share cannot be linked whole."""
    return Counter(
        folder for _, paths in _files().values() for folder in {above for path in paths for above in _folders(path)}
    )


def _links(name: str) -> Iterator[tuple[Path, str]]:
    site, paths = _files()[name]
    for path in {next((folder for folder in _folders(path) if _owners()[folder] == 1), path) for path in paths}:
        yield site / path, path


def installed(folder: Path, extra: str) -> Path:
    """Make the environment of an extra in a folder, and return its python."""
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    lib = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / lib / "site-packages"
    for name in closure(extra):
        for source, path in _links(name):
            target = site / path
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    (site / "clone.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    return python


def environment(python: Path) -> dict[str, str]:
    """The environment variables of a process that is to find nothing of this one's packages."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "COLUMNS": "200", "PATH": f"{python.parent}:{kept.get('PATH', '')}"}


def command(python: Path, folder: Path, words: Iterable[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run `saferthoughts` in an environment, with a folder as its working folder."""
    return subprocess.run(
        [str(python), "-m", "saferthoughts", *words],
        cwd=folder,
        env={**environment(python), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
