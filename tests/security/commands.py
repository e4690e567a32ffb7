"""The real command, as an attacked user starts it: a process in a folder of its own."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.commands import command


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    output: str


@dataclass
class Command:
    """`command("judge", "small")` runs that in `home`, whose runs/ holds copies of a run that is judged."""

    home: Path
    made: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str | None = None, **more: str) -> Done:
        done = command(arguments, self.home, {**os.environ, **self.env, **more}, stdin or "")
        assert "Traceback" not in done.stderr, done.stderr
        # One line, however wide the terminal was thought to be.
        return Done(done.returncode, " ".join((done.stdout + done.stderr).split()))

    def run(self, name: str) -> Path:
        """A run's folder, the test's own to change."""
        return Path(shutil.copytree(self.made, self.home / "runs" / name))
