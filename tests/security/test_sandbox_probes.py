"""The code sandbox, probed: a sandbox for each area, in which every probe of it is made, and all must hold.

As whoever runs the tests, and where that is root as an ordinary user as well.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from eval.sandbox.bubblewrap import Limits, available, run
from tests.security.sandbox_probes import AREAS, program

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are probed by the numbers of x86-64")
_FILES = (
    "eval/__init__.py",
    "eval/sandbox/bubblewrap.py",
    "eval/sandbox/seccomp.py",
    "tests/security/sandbox_probes.py",
)
_AS_A_USER = """
from eval.sandbox.bubblewrap import Limits, available, run
from tests.security.sandbox_probes import AREAS, program
assert not available(), available()
for probes in AREAS.values():
    print(run(program(probes), "", Limits(cpu=30, wall=240)).stdout, end="")
"""


def not_held(printed: str, probes: list[tuple[str, str]]) -> list[list[str]]:
    """The lines of probes that got through; every one must have been made."""
    lines = [line.split("\t") for line in printed.splitlines()]
    assert [line[1] for line in lines] == [name for name, _ in probes], printed
    return [line for line in lines if line[0] != "held"]


@pytest.fixture(autouse=True)
def _sandbox() -> None:
    if reason := available():
        pytest.skip(reason)


@pytest.mark.parametrize("area", AREAS)
def test_every_probe_is_held(area: str) -> None:
    outcome = run(program(AREAS[area]), "", Limits(cpu=30, wall=240))
    assert not_held(outcome.stdout, AREAS[area]) == [], outcome


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become someone else")
def test_every_probe_is_held_for_an_ordinary_user() -> None:
    """By the system's own Python, in a folder that everybody can read: ours may lie where only root can enter."""
    python = "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip(f"there is no {python}")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for name in _FILES:
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, Path(folder, name))
        Path(folder).chmod(0o755)
        words = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", python, "-B", "-c", _AS_A_USER]
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=500, check=False, env=environment
        )
    if "SyntaxError" in done.stderr or "ImportError" in done.stderr:
        pytest.skip(f"{python} is too old for this code")
    assert not_held(done.stdout, [probe for probes in AREAS.values() for probe in probes]) == [], done.stderr


def test_what_gets_through_is_told() -> None:
    probes = [("nothing", "pass"), ("its own number", "sys_call(39)"), ("what is refused", "os.mkdir('/x')")]
    assert not_held(run(program(probes), "", Limits()).stdout, probes) == [
        ["open", "nothing"],
        ["open", "its own number"],
    ]


def test_there_are_enough_probes_and_each_is_one_of_its_own() -> None:
    names = Counter((area, name) for area, probes in AREAS.items() for name, _ in probes)
    assert set(names.values()) == {1}
    assert len(names) >= 118 + 20
