"""A GGUF file as a model: llama.cpp's server on 127.0.0.1 for as long as a run needs it, behind a key of its own.

Needs the wheel xllamacpp (`pip install -e '.[gguf]'`). Reads the file; writes the server's log into the folder it is
given. `eval/models/inspect_models.py` asks the server as it asks any endpoint:

    with gguf_server(Path("model.Q4_1.gguf"), folder) as (url, key):
        ...

The server is this module, run as a program under `pipelines/teachers/server_process.py`: it ends with the block, when
it is told to, and when the process that started it is gone, even by kill -9. The key is in its environment alone.
"""

import importlib.util
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select

from pipelines.errors import UserError
from pipelines.teachers.server_process import kept
from pipelines.teachers.vllm_server import last_lines
from training.students.arithmetic import cpu_threads

GGUF = ".gguf"
# Answers under way at once, and the tokens that prompt and answer of each may have together.
PLACES = 4
CONTEXT = 8192
_KEY = "SAFERTHOUGHTS_GGUF_KEY"
_MAGIC = b"GGUF"
_GRACE_S = 15.0
# A file of many gigabytes on a slow disk.
_LOADING_S = 900.0


def check_gguf(path: Path) -> None:
    """Refuse a GGUF file that could not be served.

    Raises:
        UserError: there is no such file, it is no GGUF, or llama.cpp is not installed.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise UserError(f"The model '{path}' cannot be read ({error.strerror}). Give a GGUF file.") from error
    if magic != _MAGIC:
        raise UserError(f"The model '{path}' is not a GGUF file: it begins with {magic!r}. Fetch it again.")
    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(f"The model '{path}' needs llama.cpp, which is not installed: pip install -e '.[gguf]'")


@contextmanager
def gguf_server(path: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The server of a file while the block runs: its base URL and its key.

    Raises:
        UserError: it ended, or did not load the file in 15 minutes; with the last lines of its log.
    """
    key = secrets.token_urlsafe(32)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"serve-{path.stem}.log"
    root = str(Path(__file__).resolve().parents[2])
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*kept(_GRACE_S), sys.executable, "-m", "eval.models.llama_cpp", str(path.resolve())],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, start_new_session=True,
            env={**os.environ, _KEY: key, "PYTHONPATH": root},
        )  # fmt: skip
    try:
        assert server.stdout is not None
        ready, _, _ = select([server.stdout], [], [], _LOADING_S)
        address = server.stdout.readline().decode().strip() if ready else ""
        if not address.startswith("http"):
            raise UserError(
                f"llama.cpp did not load '{path}'. Its log, {log}, ends with: {last_lines(log)} Check that the file "
                "is whole and of an architecture that xllamacpp knows."
            )
        yield f"{address}/v1", key
    finally:
        server.terminate()
        server.communicate()


def _serve(path: str) -> None:
    """Load the file, print the address, and serve until a signal ends the process."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = path, {Path(path).stem}
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [os.environ.pop(_KEY)]
    params.n_parallel, params.n_ctx, params.warmup = PLACES, PLACES * CONTEXT, False
    for cpu in (params.cpuparams, params.cpuparams_batch):
        # Threads that wait for each other by spinning take six times as long beside other work.
        cpu.n_threads, cpu.poll = cpu_threads(), 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(str(error))
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
