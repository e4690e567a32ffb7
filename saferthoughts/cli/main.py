"""The entry of the command line: runs a command, and tells in one line whatever ended it.

Reads `sys.argv`; writes to stdout and stderr. What the commands need is imported once signals are listened to, so that
Ctrl-C ends the first moment as it ends any other. Run it with `saferthoughts` or `python -m saferthoughts`.
"""

import atexit
import contextlib
import gc
import os
import re
import sys
import time
import traceback

from pipelines.command_line import typed_command
from pipelines.errors import Interrupted, exit_code_of, without_secrets
from pipelines.interrupts import asked, listen


def main() -> None:
    """Run a command: 0 done, 1 incomplete, 2 bad input or environment (one line, no traceback), 130 stopped."""
    # Read once, when torch is loaded: its idle threads then sleep. Spinning, they slow every other process down, and
    # themselves 4 to 10 times where a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A command makes objects mostly by importing, and few of them go: Python looks after every 700 whether some may.
    gc.set_threshold(10_000)
    listen(lambda: f"saferthoughts: {_stopped()}")
    sys.unraisablehook = _unraisable
    try:
        code = run_command()
    except KeyboardInterrupt:  # a second one, while the first was being told of
        code = _refuse(_stopped(), 130)
    try:
        sys.stdout.flush()
    except OSError:
        # A full disk, or a reader that is gone: the interpreter would try once more, and end with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code == Interrupted.exit_code:
        # Without waiting for threads that are at work, and for DuckDB's complaints of what an interrupted query holds.
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def run_command() -> int:
    """Run the command of `sys.argv` and return its exit code; errors are printed."""
    if sys.platform == "win32":
        return _refuse("The command line needs Linux or macOS. On Windows, run it in WSL 2 (`wsl --install`).", 2)
    try:
        import typer

        from saferthoughts.cli.app import app
    except KeyboardInterrupt:
        return _refuse(_stopped(), 130)
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
        # How Typer tells of Ctrl-C.
        return _refuse(_stopped(), 130) if code == 130 else code
    except KeyboardInterrupt:
        return _refuse(_stopped(), 130)
    except typer.TyperException as error:
        return _refuse(_with_value(error.format_message()), 2)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told here or nowhere
        # Typer makes an Abort of any EOFError, a broken file's among them; of its own it has no cause.
        left = isinstance(error, typer.Abort) and error.__cause__ is None
        if left or (asked() and not isinstance(error, Interrupted)):
            # Or what a library raises whose work was interrupted.
            return _refuse(_stopped(), 130)
        from saferthoughts.cli.words import message_of

        message = message_of(error)
        if message is None:
            print(without_secrets(traceback.format_exc()), file=sys.stderr, end="")
            return _refuse("This is a fault of SaferThoughts. Please report it with the lines above.", 1)
        if "--debug" in sys.argv:
            print(without_secrets(traceback.format_exc()), file=sys.stderr, end="")
        return _refuse(message, exit_code_of(error))


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    """Say nothing of what a library could not take apart because it was interrupted, such as a half-made event loop."""
    time.sleep(_NOTED_S)
    if not asked():
        sys.__unraisablehook__(error)


def _stopped() -> str:
    return f"Stopped. Nothing is half-written. Go on with: {typed_command()}"


def _with_value(message: str) -> str:
    """Typer names the option whose value it could not read; add the value."""
    option = re.match(r"Invalid value for '(--[\w-]+)'", message)
    if option and option.group(1) in sys.argv[:-1]:
        return f"{message} (it is '{sys.argv[sys.argv.index(option.group(1)) + 1]}')."
    return message


def _refuse(message: str, code: int) -> int:
    """Print to stderr: an error as one line, a help text (which is what a bare group gives) as it is."""
    message = without_secrets(message)
    # The closed terminal, or the full disk, may be where it would be printed.
    with contextlib.suppress(OSError):
        line = message if message.startswith("Usage:") else f"saferthoughts: {_ONE_LINE.sub(' ', message.strip())}"
        print(line, file=sys.stderr)
    return code


# Seconds for the thread that listens to signals to note one.
_NOTED_S = 0.05
_ONE_LINE = re.compile(r"\s*[\r\n]\s*")
