"""Distilabel's manners, mended: importing it must not make a crash print local variables, keys among them."""

import subprocess
import sys


def test_a_crash_after_importing_distilabel_prints_no_local_variables() -> None:
    code = (
        "from pipelines.generate.imports import muted_imports\n"
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
