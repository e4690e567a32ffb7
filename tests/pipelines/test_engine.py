"""Distilabel's manners, mended: importing it must not make a crash print local variables, keys among them."""

import subprocess
import sys


def test_a_crash_after_importing_distilabel_prints_no_local_variables() -> None:
    code = (
        "from pipelines.generate.distilabel_engine import muted_imports\n"
        "with muted_imports():\n"
        "    import distilabel.pipeline\n"
        "def crash():\n"
        "    key = 'sk-' + 'very-secret'\n"
        "    raise RuntimeError('boom')\n"
        "crash()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RuntimeError: boom" in done.stderr
    assert "sk-very-secret" not in done.stderr


def test_a_forked_step_can_be_ended_whatever_handler_this_process_has() -> None:
    """Otherwise the pool waits for ever for a worker that was idle when it was told to end."""
    code = (
        "import os, signal, sys\n"
        "from pipelines.generate.distilabel_engine import _children_follow\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "ready, tell = os.pipe()\n"
        "with _children_follow():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.write(tell, b'.')\n"
        "        signal.pause()\n"
        "        os._exit(0)\n"
        "    os.read(ready, 1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    sys.exit(os.WTERMSIG(os.waitpid(child, 0)[1]) != signal.SIGTERM)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=500)
