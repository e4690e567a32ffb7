"""Where a stage's teachers are reached: what has to be started is started for the stage, and stops with it."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack

from pipelines.runs import RunFolder
from pipelines.settings.teacher import Teacher


def open_endpoints(
    run: RunFolder, teachers: Mapping[str, Teacher], asked: Collection[str], seed: int, stack: ExitStack
) -> dict[str, list[str]]:
    """Base URLs by teacher; none for one that answers in batches.

    Args:
        run: Where a served teacher's log goes.
        asked: Those of them that will be asked; a server is started for no other.
        seed: The rehearsal teacher's, where it is among them.
        stack: What is started stops when it closes.
    """
    embedded: list[str] = []
    endpoints = {}
    for name, teacher in teachers.items():
        if teacher.embedded and not embedded:
            from pipelines.rehearsal.faults import RehearsalSettings
            from pipelines.rehearsal.server import rehearsing

            embedded = [stack.enter_context(rehearsing(RehearsalSettings(seed=seed)))]
        if teacher.serve is not None and name in asked:
            from pipelines.teachers.vllm_server import served

            endpoints[name] = [stack.enter_context(served(name, teacher, run.path))]
        elif teacher.transport == "requests" and (teacher.embedded or teacher.urls):
            endpoints[name] = list(teacher.urls) or embedded
    return endpoints
