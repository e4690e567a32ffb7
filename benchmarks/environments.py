"""Environments of other projects' engines, each of its own, made on demand and kept.

Writes `.venv/contenders/NAME` (or the folder given). One that pip cannot make here may be made by hand at that place,
with a file `.ready` in it.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import ChildFailed
from pipelines.progress import console

ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".venv" / "contenders"
_LIMIT_S = 900.0
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Environment:
    """A contender that does not install beside the project, and what pip is asked for."""

    name: str
    requirement: str


CURATOR = Environment("curator 0.1.31", "bespokelabs-curator==0.1.31")
DATA_DESIGNER = Environment("data-designer 0.9.7", "data-designer==0.9.7")


def variables(folder: Path) -> dict[str, str]:
    """What the environments under `folder` need to run without a network, which tiktoken would otherwise ask.

    Both count tokens with an encoding that tiktoken downloads; litellm, which curator brings along, holds it.
    """
    if "TIKTOKEN_CACHE_DIR" in os.environ:
        return {}
    pattern = f"{_folder_name(CURATOR)}/lib/*/site-packages/litellm/litellm_core_utils/tokenizers"
    found = next(folder.glob(pattern), None)
    return {} if found is None else {"TIKTOKEN_CACHE_DIR": str(found)}


def _folder_name(environment: Environment) -> str:
    return environment.requirement.replace("==", "-")


def python_of(environment: Environment, folder: Path) -> Path:
    """The environment's interpreter; the environment is made where it is missing, which takes a minute or two.

    Raises:
        ChildFailed: it cannot be made, with the last that pip said.
    """
    place = folder / _folder_name(environment)
    python = place / "bin" / "python"
    ready = place / ".ready"
    if ready.exists():
        return python
    console.print(f"  making {place}", highlight=False, markup=False, soft_wrap=True)
    shutil.rmtree(place, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", environment.requirement]
    for command in ([sys.executable, "-m", "venv", str(place)], pip):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
        except subprocess.CalledProcessError as error:
            message = " ".join(str(error.stderr).split())[-_SHOWN:]
            raise ChildFailed(f"its environment cannot be made here: {message}") from error
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"its environment was not made within {_LIMIT_S:g} s") from error
    ready.touch()
    return python
