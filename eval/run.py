"""Evaluate students: every model on every set, counted, compared pair by pair.

Reads checkpoint folders and the sets in eval/data. Writes

    <output>/
      scores.json                    at the end, all at once; see eval/scores.py
      logs/<label>/*.eval            Inspect's logs, one a set and run: `inspect view --log-dir <output>/logs`
      logs/.inspect/                 Inspect's own traces, kept out of the home folder

Run with `saferthoughts eval`, or evaluate({"before": student, "after": model}, run_folder, max_tokens=256).
"""

import gc
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inspect_ai import eval as inspect_eval
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import Model, get_model

from eval.scores import (
    FORMAT,
    NAME,
    Decoding,
    Evaluated,
    QuestionFile,
    ScoredSample,
    Scores,
    write_scores,
)
from eval.students import BATCH, CONNECTIONS, StudentAPI
from eval.tally import comparisons, groups
from eval.tasks.refusal import SETS, Question, load_questions, refusal
from pipelines.errors import UserError
from pipelines.progress import meter
from pipelines.runs import file_hash
from training.student import check_checkpoint, weights_hash

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class IncompleteEvaluation(UserError):
    """Some samples have no score. Rates over the rest would be rates of something else, so none are written."""


def evaluate(
    models: Mapping[str, Path],
    output: Path,
    max_tokens: int,
    limit: int | None = None,
    sets: Mapping[str, Path] = SETS,
) -> Scores:
    """Ask every model every question and write `output/scores.json`.

    Args:
        models: Label -> checkpoint folder, in the order to show. Later models are compared with the first.
        output: The folder that gets `scores.json` and `logs/`.
        max_tokens: Most new tokens of reasoning and answer together; an answer that reaches it counts as truncated.
        limit: At most this many questions of each kind and set.
        sets: Name -> question file.

    Raises:
        UserError: no models, a label that cannot be a folder, a folder that is not a checkpoint, a bad question
            file, a limit below 1.
        IncompleteEvaluation: a sample failed; the logs tell why and scores.json is not written.
    """
    _check(models, max_tokens, limit)
    questions = {name: load_questions(path, limit) for name, path in sets.items()}
    evaluated, samples = [], []
    with _inspect_home(output / "logs" / ".inspect"):
        for label, path in models.items():
            run, scored = _evaluate_one(label, path, output, max_tokens, limit, sets, questions)
            evaluated.append(run)
            samples += scored
    files = [QuestionFile(name, path.name, file_hash(path), len(questions[name])) for name, path in sets.items()]
    scores = Scores(
        format=FORMAT,
        decoding=Decoding(max_tokens, "greedy", "bfloat16", BATCH),
        datasets=tuple(files),
        models=tuple(evaluated),
        groups=tuple(groups(models, questions, samples)),
        comparisons=tuple(comparisons(models, questions, samples)),
        samples=tuple(samples),
    )
    write_scores(scores, output / NAME)
    return scores


def _check(models: Mapping[str, Path], max_tokens: int, limit: int | None) -> None:
    if not models:
        raise UserError("There is no model to evaluate. Give at least one checkpoint folder.")
    for name, value in (("max_tokens", max_tokens), ("limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}. It must be at least 1.")
    for label, path in models.items():
        if not _LABEL.fullmatch(label):
            raise UserError(f"Model label '{label}' cannot be a folder: use letters, digits, '.', '_' and '-'.")
        # All of them first: a bad second folder should not show after minutes with the first.
        check_checkpoint(path)


def _evaluate_one(
    label: str,
    path: Path,
    output: Path,
    max_tokens: int,
    limit: int | None,
    sets: Mapping[str, Path],
    questions: Mapping[str, Sequence[Question]],
) -> tuple[Evaluated, list[ScoredSample]]:
    tokens = 0
    total = sum(map(len, questions.values()))
    with meter(f"eval {label}", total, "samples") as shown:
        shown.note("loading")
        model = get_model(f"student/{label}", path=str(path), memoize=False)
        assert isinstance(model.api, StudentAPI)
        started = time.monotonic()

        def watch(made: int, finished: int) -> None:
            nonlocal tokens
            tokens += made
            shown.note(f"{tokens / (time.monotonic() - started):.0f} tokens/s")
            if finished:
                shown.advance(finished)

        model.api.student.watch = watch
        model.api.student.expected = min(total, CONNECTIONS)
        try:
            logs = _ask(model, label, output / "logs" / label, max_tokens, limit, sets)
        finally:
            model.api.close()
        seconds = time.monotonic() - started
    samples = []
    for name, log in zip(sets, logs, strict=True):
        samples += _scored(label, name, log, questions[name])
    locations = tuple(str(Path(log.location).relative_to(output.resolve())) for log in logs)
    hashed = weights_hash(path)
    return Evaluated(label, str(path), hashed, seconds, tokens, tokens / seconds, locations), samples


def _ask(
    model: Model, label: str, logs: Path, max_tokens: int, limit: int | None, sets: Mapping[str, Path]
) -> list[EvalLog]:
    """Both sets at once, so that their questions share batches; the logs in the order of `sets`."""
    tasks = [refusal(str(path), name, limit) for name, path in sets.items()]
    with warnings.catch_warnings():
        # Inspect hands tenacity an argument by its old name.
        warnings.filterwarnings("ignore", "The 'initial' parameter is deprecated", DeprecationWarning)
        # And leaves a stream a sample to the garbage collector, which complains at a time of its choosing: here.
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)
        done = inspect_eval(
            tasks,
            model=model,
            log_dir=str(logs.resolve()),
            display="none",
            log_level="error",
            score_display=False,
            # No sockets, no database beside the log.
            ctl_server=False,
            acp_server=False,
            log_realtime=False,
            # One failed sample should not cost the others' answers: all are logged, then `_scored` refuses the run.
            fail_on_error=False,
            max_tasks=len(tasks),
            max_samples=CONNECTIONS,
            max_connections=CONNECTIONS,
            max_tokens=max_tokens,
            metadata={"label": label},
        )
        gc.collect()
    if len(done) < len(tasks) or any(log.status == "cancelled" for log in done):
        # Inspect swallows Ctrl-C: logs are missing or say "cancelled".
        raise KeyboardInterrupt
    named = {log.eval.task: log for log in done}
    return [named[f"refusal-{name}"] for name in sets]


def _scored(label: str, name: str, log: EvalLog, questions: Sequence[Question]) -> list[ScoredSample]:
    """The log's samples in the order of the questions, all of them or an error."""
    found = {str(sample.id): sample for sample in log.samples or [] if sample.scores and not sample.error}
    if log.status != "success" or found.keys() != {one.id for one in questions}:
        errors = [sample.error.message for sample in log.samples or [] if sample.error]
        errors += [log.error.message] if log.error else []
        why = f" The first failure: {' '.join(errors[0].split())}." if errors else ""
        raise IncompleteEvaluation(
            f"Model '{label}' has scores for {len(found)} of {len(questions)} questions of '{name}', so no rate is "
            f"given.{why} See the log {log.location}, then evaluate again."
        )
    return [_record(label, name, one, found[one.id]) for one in questions]


def _record(label: str, name: str, question: Question, sample: EvalSample) -> ScoredSample:
    score = (sample.scores or {})["reading"]
    value: dict[str, Any] = dict(score.value) if isinstance(score.value, Mapping) else {}
    usage = sample.output.usage
    return ScoredSample(
        model=label,
        set=name,
        id=question.id,
        kind=question.kind,
        category=question.category,
        text=question.text,
        reasoning=str((score.metadata or {})["reasoning"]),
        answer=score.answer or "",
        refused=None if value["unscored"] else bool(value["refused"]),
        well_formed=bool(value["well_formed"]),
        truncated=bool(value["truncated"]),
        unclosed=bool(value["unclosed"]),
        stop_reason=str(sample.output.stop_reason),
        output_tokens=usage.output_tokens if usage else 0,
    )


@contextmanager
def _inspect_home(folder: Path) -> Iterator[None]:
    """Inspect keeps traces and a pointer to the last log in the user's data folder; here they go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "XDG_DATA_HOME"
    before = os.environ.get(name)
    os.environ[name] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name)
        else:
            os.environ[name] = before
