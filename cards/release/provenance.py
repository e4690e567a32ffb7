"""What a release was made with: versions of the packages that shape it, and the state of this project's own source.

Reads the installed packages and, in a clone, git; writes nothing.
"""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Those that rows, statistics, plots and the Croissant file pass through: together they make the release's bytes.
_PACKAGES = (
    *("altair", "datasets", "distilabel", "duckdb", "huggingface-hub", "jinja2", "mlcroissant", "numpy", "openai"),
    *("pyarrow", "pydantic", "pyyaml", "scipy", "vl-convert-python"),
)
_ROOT = Path(__file__).parents[2]


def packages() -> dict[str, str | None]:
    """The installed version of each package that rows pass through; None where it is not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def source_state() -> dict[str, Any]:
    """The commit that made the release, and whether tracked files differed from it; None outside a clone."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None or changed is None else bool(changed)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
