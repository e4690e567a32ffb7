"""A log that Inspect wrote by itself, as results: `inspect eval eval/tasks/...`, and what `inspect score` made of it.

Reads one log; writes nothing. Where a log was scored several times (`inspect score --action append`) the last score of
the task's own kind counts, and what the guard saw is read from the scores. A log of a task that is not of this project
is refused.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from inspect_ai.log import EvalLog

from eval.run.answers import answers_of, due_of, output_tokens, seconds
from eval.run.logs import read_log
from eval.run.metrics import assembled
from eval.run.results import DataUsed, Measured, Results, ScoreMode, TaskRun
from eval.suites import entry
from eval.task_spec import TaskSpec
from pipelines.errors import UserError

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


def results_of_log(path: Path) -> Results:
    """The results of one log: one model, one task.

    Raises:
        UserError: it is no log, of no task of this project, or holds no sample.
    """
    log = read_log(path.parent, path.name)
    facts = (log.eval.metadata or {}).get("saferthoughts")
    try:
        found = dict(cast(dict[str, Any], facts))
        spec, data = entry(str(found["task"])), DataUsed(**found["data"])
        settings, protocol, prompts = dict(found["settings"]), str(found["protocol"]), dict(found["prompts"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is of no task of this project ({log.eval.task}). It reads logs of `saferthoughts eval` and of "
            "`inspect eval eval/tasks/...`."
        ) from error
    if not log.samples:
        raise UserError(f"{path} holds no sample ({log.status}). Run it again.")
    scored = replace(spec, scorer=_scorer(spec, log))
    label = _PLAIN.sub("-", log.eval.model)[:64].strip("-.") or "model"
    due = due_of(log)
    answers = list(answers_of(label, scored, due, log))
    details = [one.detail for one in answers]
    seen = next((str(one["seen"]) for one in details if "seen" in one), str(found.get("score", "full")))
    run = TaskRun(
        name=spec.name,
        measure=spec.measure,
        protocol=protocol,
        settings=settings,
        score=cast(ScoreMode, seen),
        data=data,
        roles=_roles(spec, log, details, dict(found.get("roles") or {})),
        prompts=prompts,
        logs={label: path.name},
    )
    place = log.eval.model_base_url or log.eval.model.partition("/")[0]
    measured = Measured(label, "endpoint", log.eval.model, place, None, "", "", seconds([log]), output_tokens(log))
    return assembled("", [measured], [run], {spec.name: due}, answers)


def _scorer(spec: TaskSpec, log: EvalLog) -> str:
    """The last score of the task's kind; Inspect numbers those that are added."""
    names = dict.fromkeys(name for sample in log.samples or [] for name in sample.scores or {})
    own = [name for name in names if re.fullmatch(rf"(?:.*/)?{re.escape(spec.scorer)}[0-9]*", name)]
    return own[-1] if own else spec.scorer


def _roles(spec: TaskSpec, log: EvalLog, details: list[dict[str, Any]], planned: dict[str, str]) -> dict[str, str]:
    """Who judged and attacked: the roles that Inspect was given, and the form of the guard in the scores."""
    configured = (log.eval.model_roles or {}).items()
    given = {name: (one[0] if isinstance(one, list) else one).model for name, one in configured}
    roles = {name: given.get(name, model) or "not stated" for name, model in planned.items()}
    if spec.decided_by:
        by = "guard" if spec.decided_by == "guard" else "by"
        form = next((str(one[by]) for one in details if by in one), "rules")
        roles[spec.decided_by] = "rules" if form == "rules" else given.get(spec.decided_by, form)
    return roles
