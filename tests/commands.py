"""Commands of ours as processes of their own, forked from one that has loaded the libraries already (tests/warm.py).

Loading them is four fifths of what a small command takes. Such a process is a user's in all else: its arguments,
folder, environment, exit code and output, and what signals and limits do to it. The commands of the quickstart, and
those of tests/test_front_door.py and tests/test_extras.py, start in a fresh interpreter.
"""

import atexit
import hashlib
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# What each kind of command loads, the training and the evaluation within functions, and what is called to load more.
RELEASES = (
    "curation.report.page",
    "saferthoughts.run",
    "saferthoughts.cli.words",
    "cards.release.build",
    "cards.signing.signing",
    "cards.verify",
    "duckdb",
    "altair",
    "vl_convert",
    "mlcroissant",
)
STAGES = (
    "pipelines.generate.stage",
    "pipelines.judges.stage",
    "pipelines.repairs.stage",
    *RELEASES,
    "curation.selection",
    "pipelines.generate.planned_responses",
    "service.running",
    "scipy.stats",
    "curation.quality.languages:_identifier",
    "curation.review.agree",
    "pipelines.rehearsal.server",
)
HUB = ("saferthoughts.release", "cards.hub.publish", "cards.hub.pull", "cards.verify", "pandas", "datasets")
MODELS = (
    "saferthoughts.cli.evaluation",
    "saferthoughts.cli.training",
    "trl.trainer.sft_trainer",
    "peft",
    "transformers.models.llama.modeling_llama",
    "training.trainer.student_trainer",
    "training.stage",
    "training.proof.dataset",
    "inspect_ai",
    "openai",
    "eval.run.stage",
    "eval.run.rescore",
    "eval.run.planning",
    "eval.suites",
    "eval.report.hub_results",
    "inspect_ai.agent._acp.server",
    "inspect_ai.model._openai_responses",
    "inspect_ai.model._model_info:_get_model_info_db",
    "IPython",
    "eval.inspect_tasks",
    "saferthoughts.evaluation",
    "rich.markdown",
    "saferthoughts.studies.planning",
    "scipy.stats",
    "pipelines.rehearsal.server",
)
# Where the processes listen: one folder for all of xdist's processes.
_PLACE = Path(tempfile.gettempdir()) / f"warm-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or secrets.token_hex(16)}"
_PATIENCE_S = 500
OF_MODELS = {"train", "chat", "eval", "rescore", "proof", "study", "student"}


def read_early(variable: str) -> bool:
    """Whether a variable decides what is loaded, or is read by the Hub's client when that is."""
    return variable == "PYTHONPATH" or (variable.startswith("HF_") and variable != "HF_TOKEN")


@cache
def _server(modules: tuple[str, ...], environment: frozenset[tuple[str, str]]) -> socket.socket:
    """The process for variables that are read when libraries are loaded, which all of xdist's processes share.

    It ends with the one that started the tests.
    """
    tests = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    kind = hashlib.sha256(repr((modules, sorted(environment))).encode()).hexdigest()[:16]
    # Others must not give orders.
    _PLACE.mkdir(mode=0o700, exist_ok=True)
    words = [sys.executable, str(ROOT / "tests" / "warm.py"), str(_PLACE / kind), str(tests), "saferthoughts.cli.app"]
    others = {name: value for name, value in os.environ.items() if not read_early(name)}
    # Read when torch is loaded: threads that spin while they wait slow others down.
    others["OMP_WAIT_POLICY"] = "PASSIVE"
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    atexit.register(ours.close)
    started: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            ours.connect(str(_PLACE / kind))
        except (FileNotFoundError, ConnectionRefusedError):
            if started is None:
                started = subprocess.Popen([*words, *modules], env=others | dict(environment), cwd=ROOT, **nothing)
            assert not started.poll(), "what warm commands load cannot be loaded"
            assert time.monotonic() < deadline, f"nobody listens on {_PLACE / kind}"
            time.sleep(0.02)
        else:
            if started is not None and started.poll() is None:
                # It outlives whoever started it.
                started.returncode = 0
            return ours


def of_models(words: Sequence[str]) -> bool:
    """Whether a command trains or asks a model, for which it loads torch."""
    typed = [*words[2 * (words[0] == "--runs") :], "", ""]
    return typed[0] in OF_MODELS or typed[:2] == ["judge", "distill"]


def _loaded(words: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """What the process has loaded that a command is forked from."""
    if "HF_ENDPOINT" not in environment:
        return MODELS if of_models(words) else STAGES
    # A test's own Hub sees releases come and go; the guides' readers, in a clone, do everything.
    return HUB + (STAGES if "PYTHONPATH" in environment else RELEASES)


class Command(subprocess.Popen[str]):
    """`saferthoughts` with some words, under way: what Popen is for `[sys.executable, "-m", "saferthoughts", *words]`.

    Words that begin with `-c` are Python's, as `[sys.executable, *words]` would have them.

    Args:
        words: What follows `saferthoughts`.
        limits: As for `resource.setrlimit`, the hard limit the same.
        processors: How many it may use at most.
        given: As for Popen, but for what is about the program, and text always.
    """

    def __init__(
        self, words: Sequence[str], limits: Mapping[int, int] | None = None, processors: int | None = None, **given: Any
    ) -> None:
        self._limits = list((limits or {}).items())
        self._processors = processors
        self._status: int | None = None
        super().__init__(list(words), text=True, **given)

    def _execute_child(self, words: list[str], *given: Any) -> None:
        cwd, env, reading, writing, errors = given[4], given[5], given[9], given[12], given[14]
        environment = dict(os.environ if env is None else env)
        order = {
            "words": words,
            "cwd": str(cwd or os.getcwd()),
            "env": environment,
            "session": given[-2],
            "group": given[-1],
            "limits": self._limits,
            "processors": self._processors,
        }
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A number, as Popen keeps processes that nobody waits for.
        self._answers = ours.detach()
        streams = [number if stream == -1 else stream for number, stream in enumerate((reading, writing, errors))]
        early = frozenset(pair for pair in environment.items() if read_early(pair[0]))
        server = _server(_loaded(words, environment), early)
        socket.send_fds(server, [json.dumps(order).encode()], [*streams, its.fileno()])
        its.close()
        self._child_created = True
        self._close_pipe_fds(*given[9:15])  # type: ignore[attr-defined]
        self.pid = int(os.read(self._answers, 64))

    def end(self, number: int) -> tuple[int, str, str]:
        """Send it a signal; gives its exit code, below zero where the signal ended it, and what it printed."""
        self.send_signal(number)
        out, errors = self.communicate(timeout=300)
        return self.returncode, out, errors

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """What `os.waitpid` gives for a child, which this process is not."""
        if self._status is None:
            if flags and not select.select([self._answers], [], [], 0)[0]:
                return 0, 0
            self._status = int(os.read(self._answers, 64))
            os.close(self._answers)
        return self.pid, self._status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._try_wait(os.WNOHANG)[0]:
            self._handle_exitstatus(self._status)  # type: ignore[attr-defined]
        return self.returncode


def command(
    words: Sequence[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = 300,
    limits: Mapping[int, int] | None = None,
    processors: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `saferthoughts` with some words to its end; one that hangs fails the test."""
    pipe = subprocess.PIPE
    with Command(words, limits, processors, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            out, errors = process.communicate(stdin, timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(list(words), process.returncode, out, errors)
