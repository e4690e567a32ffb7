"""One command of ours as a child of a request: a training's plan, a reply of a student, an evaluation's plan.

Models are loaded in a process that ends with the answer, so that the service's own memory stays. One at a time, ended
when the page or the program that asked is gone, and after `LONGEST_S`. Jobs, which outlive a request, are `jobs.py`'s.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from pipelines.errors import UserError, one_line
from service.app_state import AppState
from service.http.problems import Problem
from service.jobs.commands import command_of, last_line

LONGEST_S = 900.0
_LOOK_EVERY_S = 0.25


async def json_of(
    state: AppState, alone: threading.Lock, request: Request, words: Sequence[str], stdin: str = ""
) -> Any:
    """What `saferthoughts --runs RUNS WORDS` prints as JSON.

    Args:
        state: The service's.
        alone: Held meanwhile: `state.asking` by what loads models, `state.looking` by what only reads.
        request: Who waits.
        words: The command.
        stdin: What it reads.

    Raises:
        Problem: 409, another child is at work; 503, it took too long, or the request is gone.
        UserError: what the command says.
    """
    if not alone.acquire(blocking=False):
        raise Problem(409, "Another plan or question is being worked on. Ask again when it is done.")
    try:
        code, out, errors = await _done(state, request, words, stdin)
    finally:
        alone.release()
    if code:
        raise UserError(one_line(last_line(errors) or f"It ended with {code} and said nothing.", 2000))
    return json.loads(out)


async def _done(state: AppState, request: Request, words: Sequence[str], stdin: str) -> tuple[int, str, str]:
    command = command_of(state.runs.absolute(), *words)
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    talk = asyncio.create_task(child.communicate(stdin.encode("utf-8", "replace")))
    until = time.monotonic() + LONGEST_S
    try:
        while not (await asyncio.wait({talk}, timeout=_LOOK_EVERY_S))[0]:
            if await request.is_disconnected():
                raise Problem(503, "Nobody waits for this any more.")
            if time.monotonic() > until:
                raise Problem(503, f"This took more than {LONGEST_S / 60:.0f} minutes and was ended.")
        out, errors = talk.result()
        return child.returncode or 0, out.decode("utf-8", "replace"), errors.decode("utf-8", "replace")
    finally:
        if child.returncode is None:
            # Whatever it started goes with it.
            os.killpg(child.pid, signal.SIGKILL)
            await asyncio.wait({talk})
