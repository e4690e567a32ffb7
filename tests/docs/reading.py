"""Someone who follows a page: writes its files, runs its commands and its Python in a clone, one after the other.

What a page shows of a command's output has to come, `...` standing for what may differ. Where a page names something of
the reader's, `Surroundings.stand_ins` has what stands there in the tests.
"""

import doctest
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.commands import command, of_models, read_early
from tests.docs.pages import Command, File, Part, Snippet

# Commands that go on until Ctrl-C: the page says to give them a terminal of their own.
SERVING = ("saferthoughts review serve", "saferthoughts serve", "saferthoughts rehearse")
_LIMIT_S = 500
# A command of ours, and nothing that a shell would do.
_OURS = re.compile(r"saferthoughts ([^|&;<>$`*?~#\n]*)")
# As `python FILE` and `python -m doctest FILE`.
_SCRIPT = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
_DOCTEST = "import doctest, sys; sys.exit(doctest.testfile(sys.argv[1], module_relative=False).failed)"
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Surroundings:
    """What is around a reader: the environment, and the stand-ins by what a page says in their place.

    `afterwards` has what people do when a command that begins so is done, such as voting in Argilla.
    """

    environment: Mapping[str, str]
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    afterwards: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


class Reader:
    """Follows pages in a folder; ends, with `close`, the servers that they had it start.

    `warm` commands of ours, which ask nothing of a shell, begin with the libraries loaded (tests/commands.py).
    """

    def __init__(self, folder: Path, around: Surroundings, warm: bool = False) -> None:
        self.folder, self.around, self.warm = folder, around, warm
        here = {"PYTHONPATH": str(folder), "COLUMNS": "80", "LINES": "40", "PATH": _path()}
        self.environment = {**around.environment, **here}
        self._servers: list[subprocess.Popen[bytes]] = []

    def follow(self, part: Part) -> bool:
        """Do one thing that a page says, and give whether it was; what it says cannot be run here is passed over.

        Raises:
            AssertionError: it failed, or its output is not the page's.
        """
        if isinstance(part, File):
            file = self.folder / part.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self._standing_in(part.text), encoding="utf-8")
        elif part.not_run is None and isinstance(part, Snippet):
            self._python(part)
        elif part.not_run is None and isinstance(part, Command):
            text = self._standing_in(part.text)
            if text.startswith(SERVING):
                self._start(text)
            else:
                self._run(part, ["bash", "-o", "pipefail", "-c", text])
            for begins, act in self.around.afterwards.items():
                if text.startswith(begins):
                    act(self.folder)
        return isinstance(part, File) or part.not_run is None

    def close(self) -> None:
        """End the servers as Ctrl-C does."""
        for server in self._servers:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGINT)
            server.wait(timeout=300)

    def _standing_in(self, text: str) -> str:
        for shown, stands in self.around.stand_ins.items():
            text = text.replace(shown, stands)
        return text

    def _run(self, part: Command | Snippet, words: list[str]) -> None:
        if self.warm and (ours := _OURS.fullmatch(words[-1])):
            typed = shlex.split(ours[1])
            environment = self.environment
            if of_models(typed):
                # As other tests have it, so that no further process loads torch; the code is the clone's, unchanged.
                environment = {name: value for name, value in environment.items() if not read_early(name)}
                environment |= {name: value for name, value in os.environ.items() if read_early(name)}
            done = command(typed, self.folder, environment, timeout=_LIMIT_S)
        elif self.warm and isinstance(part, Snippet):
            done = command(["-c", _DOCTEST if part.with_output else _SCRIPT, words[-1]], self.folder, self.environment)
        else:
            done = subprocess.run(
                words,
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=_LIMIT_S,
                check=False,
            )
        place = f"{part.page}:{part.line}: {part.text}"
        assert done.returncode == 0, f"{place}\nends with {done.returncode}: {done.stdout}{done.stderr}"
        wanted = part.output if isinstance(part, Command) else None
        if wanted is not None:
            checker = doctest.OutputChecker()
            example = doctest.Example(part.text, wanted)
            same = checker.check_output(wanted, done.stdout, _SAME)
            assert same, f"{place}\n{checker.output_difference(example, done.stdout, _SAME)}"

    def _python(self, part: Snippet) -> None:
        code = self.folder / ("snippet.md" if part.with_output else "snippet.py")
        code.write_text(self._standing_in(part.text), encoding="utf-8")
        self._run(part, [sys.executable, *(("-m", "doctest") if part.with_output else ()), code.name])
        code.unlink()

    def _start(self, text: str) -> None:
        """Start a server, and wait until it says where it is."""
        output = self.folder / "server.txt"
        with output.open("wb") as file:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.folder,
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._servers.append(server)
        waited_until = time.monotonic() + _LIMIT_S
        while "http://" not in output.read_text(encoding="utf-8"):
            if server.poll() is not None:
                printed = output.read_text(encoding="utf-8")
                if "cannot be installed" in printed:
                    pytest.skip(f"needs the package index: {printed}")
                raise AssertionError(f"{text}: {printed}")
            assert time.monotonic() < waited_until, f"{text} does not say where it is"
            time.sleep(0.1)


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
