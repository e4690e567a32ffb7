"""What a power cut leaves of a run's ledger: no answer that was passed on may be lost.

python -m benchmarks.power_cuts [--quick] [--requests N] [--cuts N] [--seed N]

Generates responses from `benchmarks/latency_server.py` in a process whose writes are recorded in their order, fsyncs
among them (`write_recorder.c`, preloaded). Then the power is cut at seeded points of the record: each file is what its
last fsync left, with some of the later writes or none, one of them torn; a name is there once its folder was synced.
Each time the ledger is opened, checked and read. The same with `synchronous=NORMAL` shows that such cuts do lose what
was not waited for. Needs a C compiler (`cc`). Also measured is what waiting costs: answers a second with `synchronous`
at FULL, NORMAL and OFF. Writes to a temporary folder; the last line is JSON.
"""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.latency_server import prompt_text, serving
from pipelines.errors import UserError
from pipelines.teachers import ledger as ledgers
from pipelines.teachers.group_commit import GroupCommit
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.reply import Reply

_RECORDER = Path(__file__).with_name("write_recorder.c")
_IN_FLIGHT = 16
_SECTOR = 512
_SYNCHRONOUS = ("FULL", "NORMAL", "OFF")


@dataclass(slots=True)
class _File:
    """A file's bytes on the disk, and what was written to it since: offset and bytes, or a size that it was cut to."""

    disk: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.disk, offset, data)
        self.pending.clear()

    def after_cut(self, draw: random.Random) -> bytes:
        """What may be found after a cut: nothing of what was not synced, or any part of it, in any order."""
        content = bytearray(self.disk)
        share = draw.choice((0.0, 0.5, 0.95))
        for offset, data in self.pending:
            if draw.random() < share:
                torn = data is not None and draw.random() < 0.1
                _apply(content, offset, data[: draw.randrange(0, len(data), _SECTOR)] if torn and data else data)
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    size = offset if data is None else offset + len(data)
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:size] = data


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the record: a write, a cut to a size, a sync, a renaming to `path` (from `data`), a removal."""

    kind: Literal["W", "T", "S", "R", "U"]
    offset: int
    path: Path
    data: bytes


def operations(record: Path) -> Iterator[Operation]:
    """What `write_recorder.c` wrote."""
    with record.open("rb") as file:
        for line in file:
            kind, offset, size, path = line.decode().rstrip("\n").split(" ", 3)
            yield Operation(kind, int(offset), Path(path), file.read(int(size)))  # type: ignore[arg-type]


class Disk:
    """The files of a record, as far as they are on the disk."""

    def __init__(self) -> None:
        self._names: dict[Path, _File] = {}
        self._disk_names: dict[Path, _File] = {}

    def do(self, one: Operation) -> None:
        """Take one operation."""
        if one.kind == "W":
            self._names.setdefault(one.path, _File()).pending.append((one.offset, one.data))
        elif one.kind == "T":
            self._names.setdefault(one.path, _File()).pending.append((one.offset, None))
        elif one.kind == "R":
            self._names[one.path] = self._names.pop(Path(one.data.decode()), _File())
        elif one.kind == "U":
            self._names.pop(one.path, None)
        elif one.path in self._names:
            self._names[one.path].sync()
        else:
            inside = {path: file for path, file in self._names.items() if path.parent == one.path}
            others = {path: file for path, file in self._disk_names.items() if path.parent != one.path}
            self._disk_names = {**others, **inside}

    def cut(self, folder: Path, draw: random.Random) -> None:
        """Put what a cut leaves into a folder."""
        for path, file in self._disk_names.items():
            (folder / path.name).write_bytes(file.after_cut(draw))


@dataclass(slots=True)
class Found:
    """What the cuts came to."""

    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    broken: list[str] = field(default_factory=list)


def cut_often(record: Path, cuts: int, seed: int, folder: Path) -> Found:
    """Cut the power at so many points of a record, and look at what is left each time.

    Args:
        record: As `recorded` gives it.
        cuts: How many points, drawn from all operations.
        seed: Of the draw.
        folder: Where the ledgers are put, one after the other.
    """
    draw = random.Random(seed)
    everything = list(operations(record))
    points = sorted(draw.randrange(len(everything) + 1) for _ in range(cuts))
    disk, found, done, acknowledged = Disk(), Found(), 0, list[str]()
    for point in points:
        for one in everything[done:point]:
            if one.path.name == "passed_on":
                acknowledged += one.data.decode().split()
            else:
                disk.do(one)
        done = point
        with tempfile.TemporaryDirectory(dir=folder) as made:
            disk.cut(Path(made), draw)
            _look(Path(made) / "ledger.sqlite", acknowledged, found)
    return found


def _look(path: Path, acknowledged: list[str], found: Found) -> None:
    found.cuts += 1
    found.acknowledged += len(acknowledged)
    try:
        with closing(Ledger(path)) as ledger:
            kept = set(ledger.every_key())
            damaged = sum(1 for _ in ledger.rows()) != len(kept)
        with closing(sqlite3.connect(path)) as db:
            (answer,) = db.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok" or damaged:
            found.broken.append(f"integrity_check: {answer}; damaged replies: {damaged}")
        found.lost += sum(key not in kept for key in acknowledged)
    except (UserError, sqlite3.Error) as error:
        found.broken.append(str(error))
        found.lost += len(acknowledged)


def recorder(folder: Path) -> Path:
    """`write_recorder.c`, built.

    Raises:
        UserError: there is no C compiler, or it fails.
    """
    if shutil.which("cc") is None:
        raise UserError("benchmarks.power_cuts needs a C compiler named cc.")
    library = folder / "write_recorder.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_RECORDER), "-ldl", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise UserError(f"cc cannot build {_RECORDER.name}: {built.stderr.strip()[:500]}")
    return library


def recorded(folder: Path, requests: int, synchronous: str = "FULL") -> Path:
    """Generate so many responses in a process of its own; the record of what it wrote to its ledger, in `folder`."""
    from benchmarks.contenders.with_saferthoughts import prepare

    folder.mkdir()
    record = folder / "record"
    with serving() as server:
        server.reset(0.0)
        run = prepare([prompt_text(number) for number in range(requests)], server.url, _IN_FLIGHT, folder)
        watch = {"RECORDED_FOLDER": str(run.path), "RECORDED_LOG": str(record), "LD_PRELOAD": str(recorder(folder))}
        command = [sys.executable, "-m", "benchmarks.power_cuts", "--child", str(run.path), "--url", server.url]
        subprocess.run([*command, "--synchronous", synchronous], env={**os.environ, **watch}, check=True)
    return record


def _pass_on(path: Path, url: str) -> None:
    """The process that is recorded: every row that generation passes on is noted, by its key."""
    from benchmarks.contenders.with_saferthoughts import TEACHER
    from pipelines.generate.responses import responses
    from pipelines.runner.options import RequestOptions
    from pipelines.runner.outcomes import Control
    from pipelines.runs import RunFolder
    from pipelines.settings.config import load_config

    run = RunFolder.open(path.parent, path.name)
    rows = responses(run, load_config(run), {TEACHER: [url]}, RequestOptions(), Control(), lambda tally, error: None)
    passed_on = os.open(path / "passed_on", os.O_WRONLY | os.O_CREAT)
    for row in rows:
        if not row["error"]:
            os.write(passed_on, f"{row['request_key']}\n".encode())
    os.close(passed_on)


async def _rate(path: Path, answers: int, places: int) -> float:
    """Answers a second that are kept, by so many places that each wait for their own."""
    reply = Reply("An answer. " * 30, "A thought. " * 150, None, "stop", 90, 400, None, 1.0)
    kept = GroupCommit(path)
    numbers = iter(range(answers))

    async def place() -> None:
        for number in numbers:
            await kept.put(f"{number:016x}", "m", reply).on_disk()

    started = time.monotonic()
    await asyncio.gather(*(place() for _ in range(places)))
    taken = time.monotonic() - started
    kept.close()
    return answers / taken


def rates(folder: Path, answers: int, rounds: int) -> dict[str, float]:
    """Median answers a second by SQLite's `synchronous`, the three in turn."""
    seen: dict[str, list[float]] = {name: [] for name in _SYNCHRONOUS}
    as_it_is = ledgers._FOR_ANSWERS
    try:
        for number in range(rounds):
            for name, rate in seen.items():
                ledgers._FOR_ANSWERS = f"PRAGMA synchronous = {name}"
                rate.append(asyncio.run(_rate(folder / f"{name}{number}" / "ledger.sqlite", answers, 256)))
    finally:
        ledgers._FOR_ANSWERS = as_it_is
    return {name: round(statistics.median(rate), 1) for name, rate in seen.items()}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="50 cuts, and fewer answers: ends within 50 s.")] = False,
    requests: Annotated[int, typer.Option(help="Responses that are generated.")] = 1000,
    cuts: Annotated[int, typer.Option(help="Power cuts.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the points.")] = 59,
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
    url: Annotated[str, typer.Option(hidden=True)] = "",
    synchronous: Annotated[str, typer.Option(hidden=True)] = "FULL",
) -> None:
    """Cut the power under a ledger, and close with one line of JSON; exit 1 where an answer is lost."""
    if child is not None:
        ledgers._FOR_ANSWERS = f"PRAGMA synchronous = {synchronous}"
        _pass_on(child, url)
        return
    requests, cuts, answers, rounds = (200, 50, 1000, 1) if quick else (requests, cuts, 2000, 15)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as made:
        folder = Path(made)
        found = cut_often(recorded(folder / "full", requests), cuts, seed, folder)
        normal = cut_often(recorded(folder / "normal", requests, "NORMAL"), max(cuts // 10, 20), seed, folder)
        rate = rates(folder, answers, rounds)
    print(f"{found.cuts} power cuts: {found.lost} of {found.acknowledged} answers lost that had been passed on")
    for line in found.broken[:3]:
        print(f"  broken: {line}")
    print(f"with synchronous=NORMAL, {normal.cuts} cuts: {normal.lost} of {normal.acknowledged} lost")
    print("answers a second kept, by synchronous: " + ", ".join(f"{name} {one:.0f}" for name, one in rate.items()))
    result = {
        "benchmark": "power_cuts", "cuts": found.cuts, "acknowledged": found.acknowledged, "lost": found.lost,
        "broken": len(found.broken), "lost_with_normal": normal.lost,
        "rate_vs_normal": round(rate["FULL"] / rate["NORMAL"], 3), "rate_vs_off": round(rate["FULL"] / rate["OFF"], 3),
        "quick": quick, "load_average": round(os.getloadavg()[0], 2), "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    print(json.dumps(result))
    if found.lost or found.broken:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
