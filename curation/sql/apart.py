"""A user's SQL in a process of its own, which ends when its time or memory does.

DuckDB's own limits do not hold for a single value: `repeat('a', 10**9)` passes its memory limit, and a signal does not
interrupt it. So the process has limits of the system's, and is killed; and it ends with the process that started it.
`curation.sql.query` and `curation.quality.checks` start it; `curation/sql/apart_process.py` is what runs in it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import UserError
from pipelines.files import scratch_folder

SECONDS = 600.0
_GB = 1_000_000_000
_ROOT = Path(__file__).parents[2]


def run_apart(request: Mapping[str, Any], seconds: float = SECONDS) -> pa.Table:
    """The rows of a request that `main` knows.

    Raises:
        UserError: as the request's own work does, or it took more time, memory or room than there is for it.
    """
    with scratch_folder("sql") as work:
        whole = {**request, "memory": _memory(), "parent": os.getpid(), "scratch": str(work / "scratch")}
        command = [sys.executable, "-m", "curation.sql.apart_process"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as process:
            try:
                rows, errors = process.communicate(json.dumps(whole).encode(), timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise UserError(f"The query took more than {seconds:g} s and was stopped. Ask for less.") from error
            finally:
                process.kill()
        lines = errors.decode("utf-8", errors="replace").strip().splitlines()
        if process.returncode == UserError.exit_code:
            raise UserError(lines[-1] if lines else "The query failed.")
        if process.returncode:
            raise UserError(
                f"The query took more than {_memory() / _GB:.0f} GB of memory, or its process fell over "
                f"(code {process.returncode}). Ask for less."
            )
        return pa.ipc.open_stream(rows).read_all()


def _memory() -> int:
    """Half of the machine's memory, for DuckDB."""
    return max(_GB, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
