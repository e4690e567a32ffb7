"""Answers of an evaluation to people and their votes back, as `curation/review` does it with a run's rows.

Reads results.json and an Argilla server; writes review_sample.parquet and reviews.parquet beside it, and a dataset of
the evaluation's own. Run it with `saferthoughts review push --eval RESULTS --votes N`, `review status --eval RESULTS`
and `review pull --eval RESULTS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.review.pull import PulledVotes, collect
from curation.review.push import PushedRows, dataset_for, find_workspace, send_new
from curation.review.questions import record, settings
from curation.review.quiet import quiet
from curation.review.status import ReviewProgress, progress_of
from curation.sql.views import REVIEWS
from eval.report.figures import OVER_REFUSAL
from eval.review.sample import SAMPLE, TABLE, draw, name_of, table_of
from eval.run.results import Answer, read_results
from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import RunFolder


def push_answers(
    path: Path, client: Any, votes: int | None, min_votes: int | None = None, workspace: str | None = None
) -> PushedRows:
    """Draw answers for a budget of votes and send them, blind; without a budget, what is not there yet.

    Raises:
        UserError: there are no results, nobody can vote on them, or a dataset of other questions is in the way.
    """
    results = read_results(path)
    folder = _folder(path)
    sample = table_of(folder, TABLE, SAMPLE)
    if votes is None and not sample:
        raise UserError(f"How many votes? saferthoughts review push --eval {path} --votes 200")
    min_votes = min_votes or max((row["min_votes"] for row in sample), default=1)
    if votes is not None:
        sample = draw(results, votes, sample, min_votes)
    first = next((row["dataset"] for row in sample if row["dataset"]), "")
    name = first or f"eval-{content_id('dataset', *sorted(row['response_id'] for row in sample))[:8]}"
    answers = {name_of(answer): answer for answer in results.answers}
    asked = [row for row in sample if row["response_id"] in answers]
    for row in asked:
        row |= {"dataset": name, "min_votes": min_votes}
    scores = {task.name: task.score for task in results.tasks}

    def make(row: Mapping[str, Any]) -> Any:
        answer = answers[row["response_id"]]
        return record(_texts(answer, scores[answer.task]) | {"response_id": row["response_id"]}, False)

    def keep() -> None:
        RunFolder(folder).write(TABLE, pa.Table.from_pylist(sample, schema=SAMPLE))

    keep()
    dataset = dataset_for(client, find_workspace(client, workspace), name, settings(min_votes, patterns=False))
    sent, deleted = send_new(dataset, asked, make, keep)
    keep()
    figures = len({(row["model"], row["task"]) for row in sample})
    return PushedRows(len(sample), sent, deleted, (name,), f"{len(sample)} answers for {figures} rates")


def pull_answers(path: Path, client: Any, home: Path, workspace: str | None = None) -> PulledVotes:
    """Fetch people's votes into reviews.parquet.

    Raises:
        UserError: nothing was pushed, or the dataset is not there any more.
    """
    folder = _folder(path)
    sampled = {row["response_id"] for row in table_of(folder, TABLE, SAMPLE)}
    earlier = table_of(folder, "reviews", REVIEWS)
    rows, done = collect([(_dataset(path, client, workspace), False)], sampled, earlier, client, home)
    RunFolder(folder).write("reviews", pa.Table.from_pylist(rows, schema=REVIEWS))
    return done


def answers_progress(path: Path, client: Any, workspace: str | None = None) -> ReviewProgress:
    """How far people have got.

    Raises:
        UserError: nothing was pushed, or the dataset is not there any more.
    """
    return progress_of(client, [_dataset(path, client, workspace)])[0]


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _dataset(path: Path, client: Any, workspace: str | None) -> Any:
    sample = table_of(_folder(path), TABLE, SAMPLE)
    again = f"saferthoughts review push --eval {path} --votes N"
    if not sample:
        raise UserError(f"Answers of {path} were not pushed yet. Run first: {again}")
    place = find_workspace(client, workspace)
    with quiet():
        dataset = client.datasets(name=sample[0]["dataset"], workspace=place)
        if dataset is None:
            raise UserError(f"Dataset '{sample[0]['dataset']}' is not on {client.api_url}. Push again: {again}")
        dataset.get()
    return dataset


def _texts(answer: Answer, score: str) -> dict[str, Any]:
    """What a person sees: the part of the response that the guard saw."""
    return {
        "prompt": answer.question,
        "reasoning": "" if score == "answer" else answer.reasoning,
        "answer": "" if score == "reasoning" else answer.answer,
        "kind": "benign" if answer.task in OVER_REFUSAL else "harmful",
        "config": answer.model,
        "category": answer.category,
        "stratum": answer.task,
    }
