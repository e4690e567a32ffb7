"""What follows a command that is done: where its result is and which command usually comes next, on stderr.

One table for all commands; `saferthoughts/cli/options.py` looks into it. Nothing follows `--json`, nor a job of the
service.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_STAGE = "{waits}"
# By command, in the order of work, which is also that of help; what helps along the way comes last. {name} and the like
# are its arguments, {run} the run's folder, {do} the program with its --runs, {waits} what the run waits for. An empty
# text: the command prints both itself, or ends when it is stopped.
NEXT = {
    "demo": "",
    "run": _STAGE,
    "prompts": "Written: {run}/run.yaml and prompts.parquet. " + _STAGE,
    "generate": "Written: {run}/responses.parquet. " + _STAGE,
    "judge run": "Written: {run}/verdicts.parquet. " + _STAGE,
    "judge list": "Next: {do} judge RUN --judge NAME",
    "judge distill": "Next: {do} judge RUN --judge local:{to}",
    "judge score": "Written: {run}/judge_scores.json. Next: {do} judge stress {name}",
    "judge stress": "Written: {run}/judge_stress.json. Next: {do} review push {name}",
    "repair": "Written: {run}/repairs.parquet. " + _STAGE,
    "check": "Written: {run}/accepted.parquet and rejected.parquet. " + _STAGE,
    "review serve": "",
    "review push": "Once people have voted: {do} review pull {name}",
    "review status": "Next: {do} review pull {name}",
    "review pull": "Written: {run}/reviews.parquet. Next: {do} review agree {name}",
    "review agree": "Written: {run}/agreement.json. Next: {do} review apply {name}",
    "review apply": "Written: {run}/decisions.parquet. " + _STAGE,
    "select": "Written: {run}/selected.parquet. " + _STAGE,
    "release build": _STAGE,
    "release sign": "Next: {do} release verify {folder} --identity FILE",
    "release verify": "Next: {do} train RECIPE --dataset {release} --output MODEL",
    "release describe": "",
    "publish": "Next: {do} pull {repo}",
    "pull": "Next: {do} train RECIPE --dataset FOLDER --output MODEL",
    "train": "",
    "eval": "",
    "rescore": "Next: {do} report eval RESULTS",
    "report run": "Open it in a browser. {waits}",
    "report eval": "Open it in a browser.",
    "study list": "Next: {do} study plan STUDY",
    "study plan": "Next: {do} study run {name}",
    "study run": "Next: {do} study report {name}",
    "study status": "Next: {do} study run {name}; {do} study report {name}",
    "study report": "Open it in a browser.",
    "serve token add": "Next: {do} serve",
    "serve token list": "Next: {do} serve token revoke NAME",
    "serve token revoke": "Next: {do} serve token list",
    "status": "",
    "regenerate": "",
    "compare": "Next: {do} release build RUN --since {before}",
    "dataset look": "Next: {do} check RUN --dataset {where}, with the same options",
    "proof": "Next: {do} train RECIPE --dataset RELEASE --check",
    "sql": "",
    "duplicates": "Written: {run}/duplicates.parquet. Next: {do} report {name}",
    "contamination": "Written: {run}/contamination.parquet. Next: {do} report {name}",
    "teachers list": "Next: {do} teachers test NAME",
    "teachers test": "Next: {do} run RUN, with the same teacher",
    "teachers serve": "",
    "ledger show": "All answers: {do} ledger export {name} FILE",
    "ledger export": "",
    "ledger prune": "Next: {do} ledger show {name}",
    "ledger forget": "",
    "student fetch": "Next: {do} train smollm2-135m-cpu --dataset RELEASE --output MODEL",
    "student push": "Others use it: {do} chat ORG/NAME",
    "student nll": "Written: {run}/student_nll.parquet. Next: {do} select {name} --by student_nll",
    "chat": "",
    "rehearse": "",
    "doctor": "Install an extra: pip install -c constraints.txt -e '.[EXTRA]' (docs/guides/install.md has them)",
    "reward check": "Next: {do} train RECIPE --objective grpo --dataset RELEASE --output MODEL",
    "runs rename": "Next: {do} status {to}",
    "runs remove": "Next: {do} status",
    "runs export": "On the other machine: {do} runs import FILE",
    "runs import": "",
}

# Options with which a command only shows something, or prints for a program.
_NOTHING_WRITTEN = ("as_json", "only", "explain", "dry_run")


def next_step(command: str, arguments: Mapping[str, Any], runs: Path, typed: Sequence[str] = ()) -> str:
    """What follows a command, "" if nothing.

    Args:
        command: Its name, behind those of its groups.
        arguments: What it was called with, by the names of its parameters.
        typed: The words that were typed after the program's name.
    """
    words, evaluation, name = NEXT[command], arguments.get("evaluation"), str(arguments.get("name"))
    if any(arguments.get(option) for option in _NOTHING_WRITTEN):
        return ""
    if evaluation is not None:
        words = "Once people have voted: {do} review pull --eval {evaluation}, then {do} report eval {evaluation}"
    elif "{waits}" in words:
        words = words.replace("{waits}", _waits(name, runs))
    do = f"saferthoughts --runs {shlex.quote(str(runs))}" if "--runs" in typed else "saferthoughts"
    return words.format(**{key: shlex.quote(str(value)) for key, value in arguments.items()}, do=do, run=runs / name)


def _waits(name: str, runs: Path) -> str:
    """What a run waits for, as `status` has it; where nothing is missing, what a release is for."""
    from saferthoughts.status import status

    found = status(name, runs=runs)[0]
    if found.command:
        return f"{name} waits for {found.waits_for}: " + found.command.replace("saferthoughts", "{do}", 1)
    return (
        "Next: {do} train RECIPE --dataset {run}/release --output {run}/model, or {do} publish {name} --repo ORG/NAME"
    )
