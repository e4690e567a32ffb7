"""What decides a task's figures, as its logs and its fingerprint have it.

Reads and writes nothing; `eval/run/planning.py` and `eval/inspect_tasks.py` put it into Inspect's logs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from inspect_ai.dataset import Sample

from eval.task_spec import BuiltTask, TaskRequest, TaskSpec


def facts_of(
    spec: TaskSpec, request: TaskRequest, built: BuiltTask, protocol: str, roles: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that decides the figures but the model, as JSON has it."""
    facts = {
        "task": spec.name,
        "protocol": protocol,
        "settings": dict(request.settings),
        # Of a task that no guard scores, a change of guard changes nothing: its answers are not asked for again.
        **({"score": request.score, "guard": request.guard, "judged": request.judged} if spec.rescorer else {}),
        "roles": dict(roles),
        "data": asdict(built.data),
        "samples_sha256": _samples_sha256(list(built.task.dataset)),
        "prompts": dict(built.prompts),
    }
    # Dates of a protocol become words here, as they are in the log.
    return dict(json.loads(json.dumps(facts, default=str)))


def tags_of(spec: TaskSpec, request: TaskRequest, protocol: str) -> list[str]:
    """What a log is found by in Inspect's viewer."""
    guard = [f"guard={request.guard}", f"score={request.score}"] if spec.decided_by == "guard" else []
    return ["saferthoughts", f"protocol={protocol}", f"measure={spec.measure.name}", *guard]


def _samples_sha256(samples: Sequence[Sample]) -> str:
    """One hash over what is asked and what is expected, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        text = sample.input if isinstance(sample.input, str) else [one.model_dump_json() for one in sample.input]
        digest.update(json.dumps([sample.id, text, sample.target, sample.metadata], default=str).encode())
    return digest.hexdigest()
