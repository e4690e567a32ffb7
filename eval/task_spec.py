"""The interface of a task file: what every file of eval/tasks/ receives and defines.

Each file of eval/tasks/ opens with dataset, metric, protocol and source, reads those, writes Inspect's log only, and
ends with `TASK`, which `eval/run/stage.py` runs. Its scorer, named by `TASK.scorer`, gives each sample one `Score`:
value 0 to 1, or `Score.unscored(reason)`; `answer` the answer part; metadata with `reasoning`, and `detail` (a dict of
the task's own, kept in results.json). Reasoning and answer of what a model said are `eval/models/responses.py`'s
`thought_of`. A sample's id is stable, its metadata has `category`, and `question` where the input is not the dataset's
own text. The task itself applies the settings: Task.epochs, and decoding in Task.config; name, version and metadata of
the Task are the engine's (`eval/run/stage.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inspect_ai import Task
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Scorer

from eval.models.kept_replies import KeptReplies, Rewriting
from eval.run.results import DataUsed, Measure, ScoreMode

# What tasks are asked under where no protocol names them: one greedy answer, a sampled one of problems. Of attacks and
# over-refusal, questions that the student was trained on are left out where a protocol says so.
GREEDY: Mapping[str, Any] = {"temperature": 0, "max_tokens": 4096, "epochs": 1}
ATTACK: Mapping[str, Any] = {**GREEDY, "exclude_trained": False}
REASONED: Mapping[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 32768, "epochs": 1}


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """The user's settings for one task.

    Args:
        settings: The protocol's values for this task (eval/protocols.yaml), overrides laid over.
        data: A local file in place of the task's own source; None reads the bundled sample where `bundled`, else the
            Hub at the pinned revision.
        bundled: Whether the small sample that comes with the project is wanted.
        limit: At most so many questions, the first ones.
        score: Which part of a response the guard sees.
        guard: The form of the guard behind the model role `guard`: one of `eval.scorers.guards.FORMS`.
        judged: Whether the model role `judge` is there.
        trained: sha256 of prompts (stripped text) that the student was trained on, to be left out where it matters.
        kept: The attacker's replies that are kept, where evaluations share them.
    """

    settings: Mapping[str, Any]
    data: Path | None = None
    bundled: bool = False
    limit: int | None = None
    score: ScoreMode = "full"
    guard: str = "rules"
    judged: bool = False
    trained: frozenset[str] = frozenset()
    kept: KeptReplies | None = None

    @property
    def decoding(self) -> GenerateConfig:
        """How the model that is measured decodes: what the settings say of it."""
        keys = ("temperature", "top_p", "max_tokens")
        return GenerateConfig(**{key: self.settings[key] for key in keys if key in self.settings})


@dataclass(frozen=True, slots=True)
class BuiltTask:
    """A task ready to run: Inspect's Task, what it reads, the sha256 of every prompt text it sends, by file, and how an
    attacker rewords its questions, where it does so without a look at the student."""

    task: Task
    data: DataUsed
    prompts: Mapping[str, str] = field(default_factory=dict)
    rewriting: Rewriting | None = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task by name. `roles` are Inspect model roles that it asks; `needs` returns why it cannot run here, or "".

    `decided_by` is the role whose word the figure is, string rules where nobody has it; "" where it is counted.
    `settings` hold where a protocol does not name the task. `rescorer` makes the scorer alone, without the data: what
    `saferthoughts rescore` scores stored answers with. None for a task whose scores depend on nothing that could be
    chosen anew. `guardable`: an attack whose answers a guard can score as well, though its figure is a judge's word.
    """

    name: str
    title: str
    measure: Measure
    scorer: str
    build: Callable[[TaskRequest], BuiltTask]
    roles: Callable[[TaskRequest], tuple[str, ...]] = lambda request: ()
    needs: Callable[[], str] = lambda: ""
    rescorer: Callable[[TaskRequest], Scorer] | None = None
    decided_by: Literal["guard", "judge", ""] = ""
    settings: Mapping[str, Any] = field(default_factory=lambda: dict(GREEDY))
    guardable: bool = False
