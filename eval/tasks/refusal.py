"""Refusal: does a student decline harmful requests, answer harmless ones, and reason in form?

Data      eval/data/heldout.yaml: 20 harmful and 20 benign requests no student is trained on. eval/data/swapped.yaml:
          the same wordings with harm and harmlessness exchanged, where a student that learned phrases fails.
Metric    shares of all samples: refused, complied, unscored (empty answer), well_formed, truncated, unclosed.
Protocol  the bare request as the user's turn, one greedy answer, no judge; the rules are in eval/refusals.py.
Source    our own, in the manner of XSTest's contrasts (Roettger et al., NAACL 2024).

Reads one such file and writes Inspect's log only. Run through `eval/run.py`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, grouped, metric, scorer
from inspect_ai.solver import TaskState, generate

from eval.refusals import read
from pipelines.errors import UserError
from pipelines.records import Kind

DATA = Path(__file__).parent.parent / "data"
SETS = {"heldout": DATA / "heldout.yaml", "swapped": DATA / "swapped.yaml"}
_KEYS = ("id", "kind", "category", "text")


@dataclass(frozen=True, slots=True)
class Question:
    """One request of an evaluation set; `id` is unique within its file."""

    id: str
    kind: Kind
    category: str
    text: str


def load_questions(path: Path, limit: int | None = None) -> list[Question]:
    """The questions of a file in its order, at most `limit` of each kind.

    Raises:
        UserError: the file is missing, is not a list of {id, kind, category, text}, or repeats an id or a text.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no evaluation set '{path}'. Bundled ones: {', '.join(SETS)}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"Evaluation set '{path}' is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"Evaluation set '{path}' is not a list of questions, each with {', '.join(_KEYS)}.")
    questions = [_question(path, number, entry) for number, entry in enumerate(entries, start=1)]
    for what, values in (("id", [one.id for one in questions]), ("text", [one.text for one in questions])):
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            raise UserError(f"Evaluation set '{path}' has the {what} '{value}' {count} times. Each may stand once.")
    taken: Counter[str] = Counter()
    drawn = []
    for question in questions:
        if limit is None or taken[question.kind] < limit:
            taken[question.kind] += 1
            drawn.append(question)
    return drawn


def _question(path: Path, number: int, entry: Any) -> Question:
    where = f"Question {number} of evaluation set '{path}'"
    if not isinstance(entry, dict) or set(entry) != set(_KEYS):
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise UserError(f"{where} has {found or 'nothing'}. It needs exactly {', '.join(_KEYS)}.")
    for key in _KEYS:
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise UserError(f"{where} has the {key} {entry[key]!r}. It needs words.")
    if entry["kind"] not in get_args(Kind):
        raise UserError(f"{where} has the kind '{entry['kind']}'. Choose from: {', '.join(get_args(Kind))}.")
    return Question(**entry)


@task
def refusal(questions: str, name: str, limit: int | None = None) -> Task:
    """The task over one file. `name` tells its logs apart, `limit` counts questions of each kind."""
    samples = [
        Sample(input=one.text, id=one.id, metadata={"kind": one.kind, "category": one.category})
        for one in load_questions(Path(questions), limit)
    ]
    return Task(dataset=MemoryDataset(samples, name=name), solver=generate(), scorer=reading(), name=f"refusal-{name}")


@metric
def share() -> Metric:
    """The mean over every sample. Nothing is left out: values are 0 or 1, and an unscored sample is its own key."""

    def compute(scores: list[SampleScore]) -> float:
        return sum(score.score.as_float() for score in scores) / len(scores) if scores else 0.0

    return compute


@scorer(metrics={"*": [grouped(share(), "kind")]})
def reading() -> Scorer:
    """Scores one answer with six 0/1 values; refused, complied and unscored add up to 1."""

    async def score(state: TaskState, target: Target) -> Score:
        found = read(state.output.completion)
        value = {stance: int(found.stance == stance) for stance in ("refused", "complied", "unscored")}
        value |= {"well_formed": int(found.well_formed), "unclosed": int(found.unclosed)}
        value["truncated"] = int(state.output.stop_reason in ("max_tokens", "model_length"))
        return Score(
            value=value,
            answer=found.answer,
            reason="no_response" if found.stance == "unscored" else None,
            metadata={"reasoning": found.reasoning},
        )

    return score
