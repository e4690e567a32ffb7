"""A process that has loaded the libraries, and forks one for each command that `tests/commands.py` orders.

    python tests/warm.py SOCKET PROCESS MODULE[:FUNCTION]...

Listens on a socket of that path, and reads orders of whoever connects: JSON, and with it stdin, stdout, stderr and a
socket that is answered with the command's process id and, once it has ended, its status. It ends with the process of
that id, and its commands with it; where somebody listens there already, at once.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from functools import cache
from typing import Any, NoReturn

_LOOK_S = 5


def _reap(*_: object) -> None:
    """Wait for whatever has ended, so that its CPU time counts as this process's children's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _prepare() -> None:
    """Make what each command would make for itself: the parser of all commands, and the large templates."""
    import typer.main

    from saferthoughts.cli.app import app

    typer.main.get_command = cache(typer.main.get_command)
    typer.main.get_command(app)
    for module in ("cards.card.markdown", "curation.report.page"):
        if module in sys.modules:
            environment = sys.modules[module]._ENVIRONMENT
            for name in environment.list_templates(extensions=["jinja"]):
                environment.get_template(name)


def _keep(order: dict[str, Any], descriptors: list[int]) -> None:
    """Fork the command and, as its parent, answer with its id and status; as the command, become it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    server = os.getppid()
    *streams, answers = descriptors
    process = os.fork()
    if process == 0:
        os.close(answers)
        _become(order, streams)
    for stream in streams:
        os.close(stream)
    os.write(answers, str(process).encode())
    ended = os.pidfd_open(process)
    while not select.select([ended], [], [], _LOOK_S)[0]:
        if os.getppid() != server:
            os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    # Nobody may be left who waits for it.
    with suppress(OSError):
        os.write(answers, str(status).encode())
    os._exit(0)


def _become(order: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be the process that `python -m saferthoughts WORDS` is, to its end."""
    if order["session"]:
        os.setsid()
    elif order["group"] >= 0:
        os.setpgid(0, order["group"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for limit, size in order["limits"]:
        resource.setrlimit(limit, (size, size))
    if order["processors"]:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: order["processors"]])
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.path[0] = order["cwd"]
    sys.argv[1:] = order["words"]
    code: object = 0
    try:
        if order["words"][:1] == ["-c"]:
            sys.argv[:] = ["-c", *order["words"][2:]]
            exec(order["words"][1], {"__name__": "__main__"})  # noqa: S102 - a test's own code
        else:
            runpy.run_module("saferthoughts", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    # All of the interpreter's end but to take the libraries apart, which takes a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main() -> None:
    place, tests, *modules = sys.argv[1:]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listening.bind(place)
    except OSError:
        return
    try:
        listening.listen(64)
        gc.disable()
        for word in modules:
            module, _, function = word.partition(":")
            loaded = importlib.import_module(module)
            if function:
                getattr(loaded, function)()
        _prepare()
        # So that no collection looks at what is shared, even after a command has thawed its own.
        gc.freeze()
        gc.unfreeze = lambda: None
        gc.enable()
        signal.signal(signal.SIGCHLD, _reap)
        serve(listening, os.pidfd_open(int(tests)))
    finally:
        os.unlink(place)
        with suppress(OSError):
            os.rmdir(os.path.dirname(place))


def serve(listening: socket.socket, ended: int) -> None:
    """Fork for each order, until the process has ended whose descriptor that is."""
    clients: list[socket.socket] = []
    while True:
        ready = select.select([ended, listening, *clients], [], [])[0]
        if ended in ready:
            return
        if listening in ready:
            clients.append(listening.accept()[0])
        for client in [client for client in clients if client in ready]:
            message, descriptors, *_ = socket.recv_fds(client, 1 << 20, 4)
            if not message:
                clients.remove(client)
                client.close()
                continue
            if os.fork() == 0:
                try:
                    os.close(ended)
                    for other in (listening, *clients):
                        other.close()
                    _keep(json.loads(message), descriptors)
                finally:
                    # What follows is the server's.
                    os._exit(1)
            for descriptor in descriptors:
                os.close(descriptor)


if __name__ == "__main__":
    main()
    # Taking the libraries apart takes a second.
    os._exit(0)
