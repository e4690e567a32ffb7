"""People's votes in Argilla, on a run's rows or on an evaluation's answers.

Reads and writes what `curation/review/` and `eval/review/` do; asks the server of ARGILLA_API_URL, or else the one that
`saferthoughts review serve` started for the same folder of runs.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.runs import RunFolder
from saferthoughts.settings import StoredPath, runs_folder

if TYPE_CHECKING:
    from curation.review.apply import Applied, AppliedPreview
    from curation.review.evidence import Outlook
    from curation.review.pull import PulledVotes
    from curation.review.push import PushedRows
    from curation.review.status import ReviewProgress

_ROWS = 200
_RANDOM_SHARE = 0.5


class _Votes:
    """What both kinds of review share: the server, and the folder of runs that has its accounts."""

    def __init__(self, runs: Path, workspace: str | None) -> None:
        self._runs, self._workspace = runs, workspace

    @cached_property
    def _client(self) -> Any:
        from curation.review.home import connect

        return connect(self._runs)

    @property
    def _home(self) -> Path:
        from curation.review.home import home_of

        return home_of(self._runs)

    @property
    def url(self) -> str:
        """The Argilla server's address.

        Raises:
            UserError: there is none, or it does not answer.
        """
        return str(self._client.api_url)


class Review(_Votes):
    """People's votes on the rows of a run: `run.review()`."""

    def __init__(self, run: RunFolder, workspace: str | None = None) -> None:
        super().__init__(run.path.parent, workspace)
        self._run = run

    def push(
        self,
        *,
        votes: int | None = None,
        rows: int | None = None,
        random_share: float | None = None,
        min_votes: int | None = None,
        overlap: float | None = None,
        assist: bool = False,
        ids: Sequence[str] | None = None,
    ) -> "PushedRows":
        """Send rows to people; once more sends the next round of a budget, and what is not there yet.

        Args:
            votes: A budget of votes, spent on what narrows the share of unsafe rows most; the run's own if it had one.
            rows: Without a budget, how many rows to sample: 200, half of them where there is doubt.
            random_share: With `rows`, the share at random over all rows: 0.5.
            min_votes: How many people each row needs: 1.
            overlap: The share of rows that one more person votes on: 0.2, of a budget 0.1.
            assist: Show the judges' labels; such votes never score the judges.
            ids: In place of a sample, these responses, with the judges' labels; such votes decide these rows alone.

        Raises:
            UserError: the run is not checked, nothing can be drawn, or the server is not there.
        """
        from curation.review.push import push
        from curation.review.sample import Wanted

        if ids is not None:
            from curation.review.picked import push_picked

            if any(one is not None for one in (votes, rows, random_share, overlap)):
                raise UserError("--ids names the rows: leave --votes, --rows, --random-share and --overlap out.")
            return push_picked(self._run, self._client, ids, min_votes or 1, self._workspace)
        if votes is not None and (rows is not None or random_share is not None):
            raise UserError("--votes chooses the rows itself: leave --rows and --random-share out, or --votes.")
        before = self._run.stage("review") or {}
        if votes is None and rows is None:
            votes = before.get("votes")
        if overlap is None:
            overlap = 0.2 if votes is None else before.get("overlap", 0.1)
        if min_votes is None:
            min_votes = 1 if votes is None else before.get("min_votes", 1)
        share = _RANDOM_SHARE if random_share is None else random_share
        wanted = Wanted(rows or _ROWS, share, overlap, assist, votes)
        return push(self._run, self._client, wanted, min_votes, self._workspace)

    def progress(self) -> "list[ReviewProgress]":
        """How far people have got with each dataset of the run, and who votes unlike the others."""
        from curation.review.status import progress

        return progress(self._run, self._client, self._workspace)

    def outlook(self) -> "Outlook | None":
        """What the votes that were pulled say of the gate's bound, and how many more are likely needed; None where no
        budget was given."""
        from curation.review.evidence import outlook_of

        return outlook_of(self._run)

    def pull(self) -> "PulledVotes":
        """Fetch people's votes into reviews.parquet; names stay on the server."""
        from curation.review.pull import pull

        return pull(self._run, self._client, self._home, self._workspace)

    def agree(self, max_error: float | None = None) -> dict[str, Any]:
        """How far people agree, how good the judges are, how much of the accepted set is unsafe; agreement.json.

        Args:
            max_error: Find the rows that judges may decide alone with at most this share of errors.

        Raises:
            UserError: nothing was pulled yet, or the share is not between 0 and 1.
        """
        from curation.review.agree import agree

        if max_error is not None and not 0 < max_error < 1:
            raise UserError(f"--max-error {max_error:g}: a share between 0 and 1, such as 0.02.")
        return agree(self._run, max_error)

    def preview(self) -> "AppliedPreview":
        """Which rows `apply` and `run.check()` would take from the accepted ones and bring back; changes nothing."""
        from curation.review.apply import preview

        return preview(self._run)

    def apply(self) -> "Applied":
        """Let people's majority overrule the judges; `run.check()` then decides anew who is accepted."""
        from curation.review.apply import apply

        return apply(self._run)


class AnswerReview(_Votes):
    """People's votes on the answers of an evaluation: `evaluation.review()`.

    Args:
        folder: The folder with results.json.
        runs: The folder of runs, for the accounts of a server that was started here.
        workspace: On a server of your own, the workspace to work in.
    """

    def __init__(self, folder: StoredPath, *, runs: StoredPath | None = None, workspace: str | None = None) -> None:
        super().__init__(runs_folder(runs), workspace)
        self._folder = Path(folder)

    def push(self, *, votes: int | None = None, min_votes: int | None = None) -> "PushedRows":
        """Send a sample of answers to people, blind; once more sends the next ones.

        Args:
            votes: A budget of votes.
            min_votes: How many people each answer needs.

        Raises:
            UserError: there are no results, nothing can be drawn, or the server is not there.
        """
        from eval.review.exchange import push_answers

        return push_answers(self._folder, self._client, votes, min_votes, self._workspace)

    def progress(self) -> "list[ReviewProgress]":
        """How far people have got, and who votes unlike the others."""
        from eval.review.exchange import answers_progress

        return [answers_progress(self._folder, self._client, self._workspace)]

    def outlook(self) -> None:
        """An evaluation has no gate."""

    def pull(self) -> "PulledVotes":
        """Fetch people's votes; `report eval` then has corrected rates."""
        from eval.review.exchange import pull_answers

        return pull_answers(self._folder, self._client, self._home, self._workspace)
