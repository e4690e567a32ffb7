"""Does a run lose, repeat or hang on anything while it is killed, stopped and starved of disk, again and again?

python -m benchmarks.soak [--quick] [--requests N] [--kills N] [--seed N]

`saferthoughts generate` asks a server a tenth of whose replies are odd (benchmarks/odd_server.py). While it does, it
gets SIGKILL, SIGTERM (to the process or its group), or its disk fills up, in turn; then the same command goes on, until
every request has ended. Full disks need a file system of their own, and with it root; without, they are null.

Checked: it ends within 5 s of a SIGTERM; no planned row is missing; nothing that the ledger held when a call began is
asked again; planned = kept + failed, and the ledger's answers are the kept rows. The last line of stdout is the result
as JSON; exit code 1 where anything did not hold.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.request import urlopen

import typer

from benchmarks.contenders.with_saferthoughts import TEACHER, prepare
from benchmarks.latency_server import prompt_text, serving
from pipelines.generate.plan import plan, prompts_of
from pipelines.progress import console
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from pipelines.teachers.ledger import Ledger

IN_FLIGHT = 32
STOP_LIMIT_S = 5.0
# A command that says nothing and asks nothing for so long hangs.
_HANG_S = 300.0
_DISK = "200m"
_ROOT = Path(__file__).resolve().parent.parent
EVENTS = ("full disk", "terminate group", "kill", "terminate")


@dataclass(slots=True)
class Findings:
    """What happened and what did not hold. Times in seconds."""

    calls: int = 0
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))
    slowest_stop_s: float = 0.0
    hangs: int = 0
    asked_again: int = 0
    rows_lost: int = 0
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One run, its server and its disk."""

    def __init__(self, run: RunFolder, url: str, seed: int) -> None:
        self.findings = Findings()
        self._run, self._root = run, url.removesuffix("/v1")
        self._draw = random.Random(seed)
        self._numbers = {prompt.prompt_id: int(prompt.behaviour_id.split("-")[1]) for prompt in prompts_of(run)}
        self._asks = {ask.key: self._numbers[ask.prompt_id] for ask in plan(load_config(run), prompts_of(run))}
        # How often each request had been asked when its answer was first seen in the ledger.
        self._settled: dict[int, int] = {}

    def disturb(self, event: str, after: int) -> bool:
        """Start the command, let it ask `after` requests, and disturb it; False where it ended by itself."""
        begun = sum(self._asked().values())
        self.findings.calls += 1
        with self._command() as process:
            waited = time.monotonic()
            while sum(self._asked().values()) < begun + after:
                if process.poll() is not None:
                    self._settle()
                    return False
                if time.monotonic() - waited > _HANG_S:
                    return self._hung(process, f"nothing was asked for {_HANG_S:g} s before {event}")
                time.sleep(0.02)
            self.findings.events[event] += 1
            self._act(event, process)
        self._wait_for_quiet()
        self._settle()
        return True

    def finish(self) -> int:
        """Run the command to its end; its exit code."""
        self.findings.calls += 1
        with self._command() as process:
            try:
                code = process.wait(timeout=max(_HANG_S, len(self._asks) / 10))
            except subprocess.TimeoutExpired:
                self._hung(process, "the last call did not end")
                return -1
        self._settle()
        return code

    def _act(self, event: str, process: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        if event == "full disk":
            filler = self._run.path.parent / "filler"
            space = os.statvfs(filler.parent)
            with suppress(OSError):  # the command writes too, and may take the last of the room
                filler.write_bytes(bytes(max(space.f_bavail * space.f_frsize - self._draw.randrange(60_000), 0)))
        elif event == "terminate group":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGKILL if event == "kill" else signal.SIGTERM)
        try:
            code = process.wait(timeout=_HANG_S)
        except subprocess.TimeoutExpired:
            self._hung(process, f"it went on after: {event}")
            return
        finally:
            (self._run.path.parent / "filler").unlink(missing_ok=True)
        seconds = time.monotonic() - began
        if event.startswith("terminate"):
            self.findings.slowest_stop_s = max(self.findings.slowest_stop_s, seconds)
            self.findings.hangs += seconds > STOP_LIMIT_S
        # It may have come to its end in the very moment of the signal.
        expected = {"kill": (-9, 0, 1), "full disk": (2, 0, 1)}.get(event, (130, 0, 1))
        if code not in expected:
            self.findings.wrong.append(f"exit code {code} after {event}")

    def _hung(self, process: subprocess.Popen[bytes], why: str) -> bool:
        self.findings.hangs += 1
        self.findings.wrong.append(why)
        os.killpg(process.pid, signal.SIGKILL)
        return True

    @contextmanager
    def _command(self) -> Iterator[subprocess.Popen[bytes]]:
        words = [sys.executable, "-m", "saferthoughts", "--runs", str(self._run.path.parent), "generate", "run"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryFile() as output:
            streams: dict[str, Any] = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL}
            process = subprocess.Popen(words, cwd=_ROOT, env=environment, start_new_session=True, **streams)
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                output.seek(0)
                _, found, rest = output.read().partition(b"Traceback")
                if found:
                    self.findings.wrong.append(f"a traceback: {rest.decode(errors='replace')[:1500]}")

    def _asked(self) -> dict[int, int]:
        with urlopen(f"{self._root}/asks") as answer:
            return {int(number): count for number, count in json.load(answer)["asks"].items()}

    def _wait_for_quiet(self) -> None:
        """Children of a killed process follow it within a second, and until then they still ask."""
        deadline = time.monotonic() + 60
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            with urlopen(f"{self._root}/asks") as answer:
                quiet = quiet + 1 if json.load(answer)["under_way"] == 0 else 0
            time.sleep(0.3)

    def _settle(self) -> None:
        """Between two calls: hold what the ledger has against what was asked since it had it."""
        asked = self._asked()
        self.findings.asked_again += sum(asked[number] > count for number, count in self._settled.items())
        ledger = Ledger(self._run.path / "ledger.sqlite")
        self._settled = {self._asks[key]: asked[self._asks[key]] for key in ledger.every_key()}
        ledger.close()

    def count(self) -> None:
        """After the last call: every planned row is in one table, and the numbers add up."""
        planned = {ask.response_id: ask.key for ask in plan(load_config(self._run), prompts_of(self._run))}
        kept = self._run.read("responses")["response_id"].to_pylist()
        failed = self._run.read("failed")["response_id"].to_pylist()
        self.findings.rows_lost = len(planned.keys() - {*kept, *failed})
        if len(kept) + len(failed) != len(planned) or not planned.keys() >= {*kept, *failed}:
            self.findings.wrong.append(f"{len(planned)} planned, {len(kept)} kept, {len(failed)} failed")
        ledger = Ledger(self._run.path / "ledger.sqlite")
        answers = set(ledger.every_key())
        ledger.close()
        if answers != {planned[response_id] for response_id in kept}:
            self.findings.wrong.append(f"{len(answers)} answers in the ledger, {len(kept)} rows kept")
        if len(self._asked()) != len(planned):
            self.findings.wrong.append(f"{len(self._asked())} of {len(planned)} requests reached the server")


@contextmanager
def own_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder` while the block runs; whether that was possible."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def prepared(requests: int, url: str, folder: Path) -> RunFolder:
    """A run of that many requests, with a teacher that is given up on soon."""
    run = prepare([prompt_text(number) for number in range(requests)], url, IN_FLIGHT, folder)
    config = load_config(run)
    patience = {"retries": 1, "attempt_timeout_s": 3.0}
    teachers = {TEACHER: config.teachers[TEACHER].model_copy(update=patience)}
    save_config(run, config.model_copy(update={"teachers": teachers}))
    return run


def soak(requests: int, kills: int, seed: int) -> dict[str, object]:
    """Run it all; the closing figures, `holds` among them."""
    started, load = time.monotonic(), os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as made,
        own_disk(Path(made)) as mounted,
        serving("benchmarks.odd_server") as server,
    ):
        disturbed = Soak(prepared(requests, server.url, Path(made)), server.url, seed)
        draw = random.Random(seed)
        for number in range(kills):
            event = EVENTS[number % len(EVENTS)]
            if event == "full disk" and not mounted:
                continue
            # Fewer than there are on average, so that the last call has work as well.
            after = draw.randrange(1, max(requests // (kills + 1), 2))
            console.print(f"soak: {number + 1} of {kills}: {event} after {after} requests", highlight=False)
            if not disturbed.disturb(event, after):
                break
        code = disturbed.finish()
        if code in (0, 1):
            disturbed.count()
        else:
            disturbed.findings.wrong.append(f"exit code {code} of the last call")
    found = disturbed.findings
    events: dict[str, int | None] = dict(found.events)
    if not mounted:
        events["full disk"] = None
    return {
        "benchmark": "soak",
        "holds": not (found.hangs or found.rows_lost or found.asked_again or found.wrong),
        "requests": requests,
        "calls": found.calls,
        "events": events,
        "hangs": found.hangs,
        "slowest_stop_s": round(found.slowest_stop_s, 2),
        "rows_lost": found.rows_lost,
        "asked_again": found.asked_again,
        "wrong": found.wrong,
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "seconds": round(time.monotonic() - started, 1),
    }


def main(
    requests: Annotated[int, typer.Option(min=1, help="How many requests the run has.")] = 20_000,
    kills: Annotated[int, typer.Option(min=0, help="How often it is disturbed.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed disturbs at other moments.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="300 requests, 4 disturbances: ends within 50 s.")] = False,
) -> None:
    """Disturb a run until it is done, and close with one line of JSON.

    Example: python -m benchmarks.soak --quick
    """
    result = soak(300, 4, seed) if quick else soak(requests, kills, seed)
    print(json.dumps(result))
    raise typer.Exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    typer.run(main)
