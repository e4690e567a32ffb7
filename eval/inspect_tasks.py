"""Tasks as Inspect runs them by itself: `inspect eval eval/tasks/strongreject.py --model openai/gpt-4o`.

Each file of eval/tasks has a function with Inspect's `@task`, whose arguments are `Arguments`; models that a task asks
beside the target are Inspect's model roles:

    inspect eval eval/tasks/harmbench.py --model vllm/my-r1 -T guard=llamaguard --model-role guard=openai/llama-guard-3
    inspect eval eval/tasks/strongreject.py --model openai/gpt-4o -T judged=true --model-role judge=openai/gpt-4o

A log carries the arguments, tags (protocol, measure, guard) and what decides the figures, as those of `saferthoughts
eval` do, and `saferthoughts report eval LOG.eval` reads it. Reads the tasks' data; writes nothing.
"""

from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from inspect_ai import Task, task_with

from eval.run.facts import facts_of, tags_of
from eval.run.results import ScoreMode
from eval.task_spec import TaskRequest, TaskSpec
from pipelines.errors import UserError, unknown

__all__ = ["Arguments", "Unpack", "standalone"]


class Arguments(TypedDict, total=False):
    """What `-T NAME=VALUE` may set, of every task.

    Attributes:
        protocol: paper (default), repository, ours or quick; docs/protocols.md has them side by side.
        data: A local file in place of the task's own source.
        bundled: Whether the small sample that comes with the project is asked.
        questions: At most so many, the first ones; Inspect's own --limit does the same.
        guard: The form of the model role `guard`: rules (default, asks nobody), yes-no, or another of
            eval/scorers/guards.py, such as llamaguard or harmbench.
        score: What the guard sees of a response: full (default), answer, reasoning or apart.
        judged: Whether there is a model role `judge`; string rules otherwise.
        settings: The task's own, as in `-T settings=subset=contextual,max_tokens=512`.
    """

    protocol: str
    data: str
    bundled: bool
    questions: int
    guard: str
    score: str
    judged: bool
    settings: str


def standalone(spec: TaskSpec, arguments: Arguments) -> Task:
    """A task by Inspect's arguments.

    Raises:
        UserError: an argument or a setting that there is not, or whatever the task refuses.
    """
    from eval.protocols import PAPER, parsed, settings

    for name in arguments:
        if name not in Arguments.__annotations__:
            raise unknown(f"argument of {spec.name}", name, Arguments.__annotations__)
    if reason := spec.needs():
        raise UserError(f"Task '{spec.name}' cannot run here: {reason}")
    given: Any = arguments.get("settings", "")
    # Inspect makes a list of what has commas in it.
    texts = given if isinstance(given, list) else [one for one in str(given).split(",") if one]
    overrides = parsed([f"{spec.name}.{text}" for text in texts], [spec.name])
    protocol = arguments.get("protocol", PAPER)
    request = TaskRequest(
        settings=settings(protocol, spec.name, overrides),
        data=Path(arguments["data"]) if "data" in arguments else None,
        bundled=arguments.get("bundled", False),
        limit=arguments.get("questions"),
        score=cast(ScoreMode, arguments.get("score", "full")),
        guard=arguments.get("guard", "rules"),
        judged=arguments.get("judged", False),
    )
    built = spec.build(request)
    roles: dict[str, Any] = dict.fromkeys(spec.roles(request), "")
    facts = facts_of(spec, request, built, protocol, roles)
    return task_with(
        built.task, name=spec.name, metadata={"saferthoughts": facts}, tags=tags_of(spec, request, protocol)
    )
