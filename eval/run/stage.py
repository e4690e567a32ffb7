"""Evaluate models: every task of a suite, counted, with intervals, compared pair by pair; resumable.

Reads checkpoints and the tasks' data, asks endpoints. Writes

    <output>/
      results.json                   at the end, all at once; see eval/run/results.py
      logs/<label>-<hash>/*.eval     Inspect's logs, one a task: `inspect view --log-dir <output>/logs`
      logs/<label>-<hash>/live.jsonl a line for each answer as it comes, without texts: eval/run/live.py
      logs/.inspect/                 Inspect's own traces and buffers, kept out of the home folder
      serve-<name>.log               of a vLLM server that was started for the run

Run with `saferthoughts eval`, or evaluate([checkpoint_target("after", model)], Wanted(), run_folder / "eval").
An evaluation that was stopped goes on where it was: the logs say what has been answered.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import Model

from eval.models.hf_local import CONNECTIONS, StudentAPI
from eval.models.inspect_models import Servers, Target, open_roles, open_target
from eval.models.kept_replies import KeptReplies, keeping
from eval.run.answers import answers_of, output_tokens, prompts_written, seconds
from eval.run.inspect_session import ask, inspecting
from eval.run.live import LIVE
from eval.run.live_answers import LiveAnswers
from eval.run.metrics import ALL, assembled
from eval.run.planning import Planned, Wanted, plan
from eval.run.results import NAME, Answer, Measured, Results, TaskRun, write_results
from eval.training_overlap import trained_on
from pipelines.command_line import typed_command
from pipelines.errors import Incomplete, UserError
from pipelines.progress import Meter, console, meter

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def evaluate(targets: Sequence[Target], wanted: Wanted, output: Path) -> Results:
    """Ask every model every question and write `output/results.json`, complete or not; `require_complete` tells.

    Args:
        targets: In the order to show, each with a label of its own. Later ones are compared with the first.
        wanted: What to ask.
        output: The folder that gets `results.json` and `logs/`.

    Raises:
        UserError: no models, a label that cannot be a folder, a model or a task that cannot be asked; before anything
            is asked.
        KeyboardInterrupt: Ctrl-C; answers so far are in the logs.
    """
    _check(targets)
    planned = plan(wanted)
    measured: list[Measured] = []
    answers: list[Answer] = []
    logs: dict[str, list[str]] = {}
    with ExitStack() as stack, inspecting(output / "logs" / ".inspect"):
        servers = Servers(output, stack)
        kept = _keeping(wanted, planned, stack)
        for target in targets:
            weights = target.weights_sha256()
            folder = output / "logs" / _folder(target, weights)
            found = _ask(target, planned, servers, folder, kept)
            # Inspect gives the place of a log as a path or as a URL; the last part is the same.
            logs[target.label] = [f"logs/{folder.name}/{Path(log.location).name}" for log in found]
            for one, log in zip(planned, found, strict=True):
                answers += answers_of(target.label, one.spec, one.expected, log)
            measured.append(_measured(target, weights, found))
    results = assembled(
        wanted.suite if not wanted.tasks else "",
        measured,
        [_task_run(one, logs, number) for number, one in enumerate(planned)],
        {one.spec.name: one.expected for one in planned},
        answers,
    )
    write_results(results, output / NAME)
    return results


def _keeping(wanted: Wanted, planned: Sequence[Planned], stack: ExitStack) -> KeptReplies | None:
    """The attacker's replies that evaluations share, where a task needs them."""
    attacker = wanted.roles.attacker
    if wanted.kept is None or attacker is None or all(one.built.rewriting is None for one in planned):
        return None
    return stack.enter_context(keeping(wanted.kept, attacker))


def _measured(target: Target, weights: str | None, logs: Sequence[EvalLog]) -> Measured:
    """The model, and what its logs say of the run."""
    source = trained_on(target.path)
    asked, kept = prompts_written(logs)
    return Measured(
        label=target.label,
        kind=target.kind,
        name=target.model,
        place=target.place,
        weights_sha256=weights,
        base=target.base,
        variant=target.variant,
        seconds=seconds(logs),
        output_tokens=sum(map(output_tokens, logs)),
        trained_on=source.name,
        rehearsed=source.rehearsed,
        attacks_asked=asked,
        attacks_kept=kept,
    )


def require_complete(results: Results, output: Path) -> None:
    """Refuse results that lack answers.

    Raises:
        Incomplete: an answer was never given, a sample failed, or none of a task's answers has a verdict; tells how
            many, why, and how to go on.
    """
    lacking = []
    for rate in results.rates:
        if rate.group == ALL and (rate.n < rate.expected or rate.errored):
            given = rate.n - rate.errored
            lacking.append(f"{rate.model}, {rate.task}: {given} of {rate.expected} answers")
    if not lacking:
        _require_verdicts(results, output)
        return
    errors = Counter(one.error for one in results.answers if one.error).most_common(1)
    why = f" Most often: {errors[0][0].rstrip('.')}." if errors else ""
    raise Incomplete(
        f"Not everything was answered ({'; '.join(lacking)}), and the intervals are wider for it.{why} What there is "
        f"is in {output / NAME}. Go on, asking only for what is missing, with: {typed_command()}"
    )


def _require_verdicts(results: Results, output: Path) -> None:
    """Refuse a task of a model none of whose answers has a verdict: it has no figure."""
    blank = [rate for rate in results.rates if rate.group == ALL and not rate.known]
    if not blank:
        return
    where = {(rate.model, rate.task) for rate in blank}
    reasons = Counter(one.unscored for one in results.answers if (one.model, one.task) in where and one.unscored)
    often = reasons.most_common(1)
    why = f" Most often: {often[0][0].rstrip('.')}." if often else ""
    named = "; ".join(f"{rate.model}, {rate.task}: 0 of {rate.expected}" for rate in blank)
    raise Incomplete(
        f"Of some tasks no answer has a verdict, and they have no figure ({named}).{why} The answers are in "
        f"{output / NAME}. Score them by another guard or judge (saferthoughts rescore {output} --guard NAME) or, "
        "where they are empty, ask again with more tokens (--set TASK.max_tokens=N)."
    )


def _check(targets: Sequence[Target]) -> None:
    if not targets:
        raise UserError("There is no model to evaluate. Give a run, a checkpoint's folder or a teacher's name.")
    for number, target in enumerate(targets):
        if any(other.label == target.label for other in targets[:number]):
            raise UserError(f"Model label '{target.label}' is given twice. Give each model a label of its own.")
        if not _LABEL.fullmatch(target.label):
            raise UserError(f"Model label '{target.label}' cannot be a folder: use letters, digits, '.', '_' and '-'.")
        # All of them first: a bad second one should not show after minutes with the first.
        target.check()


def _folder(target: Target, weights: str | None) -> str:
    """Where a model's logs go; another model of the same label, or the same trained again, gets another place."""
    which = weights or hashlib.sha256(f"{target.model}\n{target.place}".encode()).hexdigest()
    return f"{target.label}-{which[:12]}"


def _ask(
    target: Target, planned: Sequence[Planned], servers: Servers, folder: Path, kept_replies: KeptReplies | None
) -> list[EvalLog]:
    total = sum(len(one.expected) for one in planned)
    with meter(f"eval {target.label}", total, "samples") as shown, ExitStack() as stack:
        shown.note("loading")
        model = open_target(target, servers, stack)
        # A role that two tasks give to two models is opened twice.
        asked = {f"{role.name} as {name}": role for one in planned for name, role in one.roles.items()}
        models = open_roles(asked, servers)
        shown.note("")
        _watch(model, shown, total)
        most = model.config.max_connections or CONNECTIONS
        live = LiveAnswers(folder / LIVE, target.label, planned)

        def finished(task: str, sample: EvalSample) -> None:
            shown.advance()
            live.add(task, sample)

        tasks = [one.task(models, kept_replies) for one in planned]
        logs = ask(tasks, model, list(models.values()), folder, most, finished)
        if kept := total - shown.done:
            shown.note(f"{kept} from an earlier call")
            shown.advance(kept)
    for log in logs:
        if log.error and not log.samples:
            console.print(
                f"{log.eval.task}: {' '.join(log.error.message.split())[:500]}", markup=False, highlight=False
            )
    return logs


def _watch(model: Model, shown: Meter, total: int) -> None:
    """Show how fast a student on the CPU decodes, and set how many requests it expects at first."""
    if not isinstance(model.api, StudentAPI):
        return
    started = time.monotonic()
    tokens = 0

    def note(made: int, finished: int) -> None:
        nonlocal tokens
        tokens += made
        shown.note(f"{tokens / (time.monotonic() - started):.0f} tokens/s")

    model.api.student.watch = note
    model.api.student.expected = min(total, CONNECTIONS)


def _task_run(one: Planned, logs: dict[str, list[str]], number: int) -> TaskRun:
    return TaskRun(
        name=one.spec.name,
        measure=one.spec.measure,
        protocol=one.facts["protocol"],
        settings=dict(one.facts["settings"]),
        score=one.request.score,
        data=one.built.data,
        roles=dict(one.facts["roles"]),
        prompts=dict(one.built.prompts),
        logs={label: found[number] for label, found in logs.items()},
    )
