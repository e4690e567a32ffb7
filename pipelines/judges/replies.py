"""Judges asked about replies that no run holds: those that a student writes while it learns, and examples.

Writes a folder of its own, which is a small run: run.yaml with the judges, the ledger with every answer, and the tables
of the last replies. What was asked there before is not asked again, and the budget is that of all calls together.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.errors import UserError
from pipelines.judges.stage import judge, judge_teachers
from pipelines.records import Kind, Prompt, Response, Verdict, content_id, from_table, response_from_elsewhere, to_table
from pipelines.runner.options import DEFAULTS, NO_CAPS, Caps, RequestOptions
from pipelines.runner.preflight import check_judges_answer
from pipelines.runner.session import check_teachers
from pipelines.runs import RunFolder
from pipelines.settings.config import save_config
from pipelines.settings.options import Options, configured
from pipelines.settings.parts import read_yaml
from pipelines.teachers.ledger import Ledger, Totals
from pipelines.thinking import Thought

# What of a run's configuration says who judges and how.
_JUDGING = ("judging", "judges", "judge_teachers", "seed")


class ReplyJudges:
    """Some judges and their folder.

    Args:
        names: Who judges; those of `config` where none is named.
        config: A run.yaml whose judges, their entries and their vote hold.
        caps: What they may cost, in all calls together.

    Raises:
        UserError: an unknown judge, a file that is no configuration, a key or a price that is missing.
    """

    def __init__(self, names: Sequence[str] = (), config: Path | None = None, caps: Caps = NO_CAPS) -> None:
        values = read_yaml(config) if config else {}
        if not isinstance(values, dict):
            raise UserError(f"{config} does not map keys to values, as a run.yaml does.")
        values = {key: values[key] for key in _JUDGING if values.get(key) is not None}
        if names:
            values["judging"] = {**values.get("judging", {}), "judges": list(names)}
        self.config = configured(Options(also=values), asks=False)
        self._options = RequestOptions(caps=caps)
        self._run: RunFolder | None = None
        check_teachers(judge_teachers(self.config), caps)

    def open(self, folder: Path, name: str = "judged") -> None:
        """Keep everything in a folder under another, and ask each judge that has not answered there a first question.

        Raises:
            UserError: a judge cannot be asked.
        """
        self._run = RunFolder.create(folder, name)
        save_config(self._run, self.config)
        check_judges_answer(self._run, self.config)

    def verdicts(self, replies: Sequence[tuple[Kind, str, Thought]]) -> list[Verdict | None]:
        """The vote on each reply to a prompt of a kind; None of replies without reasoning or answer.

        Raises:
            UserError: every request would fail, or nothing more can be kept.
            Incomplete: the budget is spent.
        """
        assert self._run is not None
        texts = [
            (str(number), kind, query, thought.reasoning, thought.answer)
            for number, (kind, query, thought) in enumerate(replies)
            if thought.reasoning.strip() and thought.answer.strip()
        ]
        if not texts:
            return [None] * len(replies)
        judge_texts(self._run, texts, self._options)
        found = {verdict.response_id: verdict for verdict in from_table(Verdict, self._run.read("verdicts"))}
        return [found.get(text_id(str(number))) for number in range(len(replies))]

    @property
    def totals(self) -> Totals:
        """What was asked there and what that cost."""
        assert self._run is not None
        with Ledger.reading(self._run.path / "ledger.sqlite") as ledger:
            return ledger.totals()


def text_id(name: str) -> str:
    """The id of a text's verdict."""
    return content_id("example", name)


def judge_texts(
    run: RunFolder, texts: Iterable[tuple[str, Kind, str, str, str]], options: RequestOptions = DEFAULTS
) -> None:
    """Have texts judged by a run's judges, in place of what the run held: of each a name, the kind of its prompt, the
    prompt, reasoning and answer. Errors are those of `judge`."""
    prompts = []
    responses = []
    for name, kind, query, reasoning, answer in texts:
        prompt_id = content_id("example prompt", name)
        prompts.append(Prompt(prompt_id, kind, name, "", "", query, query, "bundled examples", "apache-2.0"))
        responses.append(response_from_elsewhere(text_id(name), prompt_id, "direct", reasoning, answer))
    run.write("prompts", to_table(Prompt, prompts))
    run.write("responses", to_table(Response, sorted(responses, key=lambda item: item.response_id)))
    judge(run, options)
