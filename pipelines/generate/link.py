"""The link from the asking step, in a process of Distilabel's or Ray's, to the command that shows progress.

The command listens at a UNIX socket in a folder that only its user may enter; the step connects and sends JSON: its
tally and the error of a request that failed, and at the end why it ended early, if it did.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from pipelines.runner.outcomes import Ending, Tally

# The path of a UNIX socket has at most 107 bytes.
_LONGEST = 80


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener for one step; its `address` is what the step connects to."""
    made = tempfile.mkdtemp(prefix="saferthoughts-")
    if len(made.encode()) > _LONGEST:
        Path(made).rmdir()
        made = tempfile.mkdtemp(prefix="saferthoughts-", dir="/tmp")
    try:
        with Listener(str(Path(made) / "link"), "AF_UNIX") as listener:
            yield listener
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Link:
    """The step's end. A command that no longer listens is no reason to fail: it is about to end this process."""

    def __init__(self, address: str) -> None:
        self._connection = Client(address, "AF_UNIX")

    def progress(self, tally: Tally, error: str) -> None:
        """Tell the tally, and the error of the request that just failed, "" for none."""
        self._send({"tally": asdict(tally), "error": error})

    def ended(self, ending: Ending) -> None:
        """Tell why it ended early."""
        self._send({"ending": asdict(ending)})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):
            self._connection.send_bytes(json.dumps(message).encode())


def received(connection: "Connection[Any, Any]") -> tuple[Tally, str] | Ending | None:
    """The next message at the command's end; None where the step has closed the connection."""
    try:
        message = json.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return None
    if "ending" in message:
        return Ending(**message["ending"])
    return Tally(**message["tally"]), message["error"]
