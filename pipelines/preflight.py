"""The first question of a run to each teacher and judge, so that what cannot work is found before it is paid for.

Reads run.yaml, the prompts and the ledger; writes the answer to the ledger, so that nobody is asked twice, and to
run.yaml what a server does not take (a lower max_tokens, no temperature): it is the sampling of every answer that
follows. Nothing is asked, and nothing changed, where the ledger holds answers under the same settings. The embedded
rehearsal teacher is not asked.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from pipelines.config import RunConfig, Teacher, change_config
from pipelines.errors import UserError
from pipelines.first_question import (
    MESSAGES,
    QUESTION_TOKENS,
    FirstAnswer,
    NoAnswer,
    ask_first,
    reasoning_elsewhere,
)
from pipelines.judges.patterns import rubric
from pipelines.ledger import PREFLIGHT, Ledger, request_key
from pipelines.plan import plan, prompts_of, request_fields
from pipelines.progress import console
from pipelines.runs import RunFolder
from pipelines.variant import variant

# What sets these requests apart from all others in the ledger.
_SAMPLE = -1
# Answers in the ledger are looked for among so many of a teacher's planned ones.
_LOOKED_AT = 200
# Below what English takes, and room for what a chat template adds.
_BYTES_PER_TOKEN = 3
_TEMPLATE_TOKENS = 128


@dataclass(frozen=True, slots=True)
class _Entry:
    """Somebody to ask: an entry as it is asked in its role, and what is to be found out.

    `holder` is the key of run.yaml that its sampling belongs to: the teacher's name, or the judge's.
    """

    role: Literal["teacher", "judge"]
    holder: str
    name: str
    teacher: Teacher
    urls: tuple[str, ...]
    prompt_tokens: int
    wants_reasoning: bool = False

    @property
    def key(self) -> str:
        """The ledger's key of its first question."""
        return first_key(self.teacher)


def first_key(teacher: Teacher) -> str:
    """The ledger's key of the first question to an entry, as it is asked in its role."""
    return request_key(teacher.model, MESSAGES, request_fields(teacher, 0), _SAMPLE)


def check_teachers_answer(
    run: RunFolder,
    config: RunConfig,
    ledger: Ledger,
    names: Collection[str],
    endpoints: Mapping[str, Sequence[str]],
    no_reasoning: bool = False,
) -> RunConfig:
    """Ask each of a run's teachers its first question, where it has not answered under its settings before.

    Args:
        run: The run.
        config: Its configuration.
        ledger: Its ledger.
        names: The teachers that will be asked.
        endpoints: Base URLs of each.
        no_reasoning: Go on with a teacher that shows no reasoning.

    Returns:
        The run's configuration, as the teachers take it.

    Raises:
        UserError: a teacher does not answer, or shows no reasoning where a variant wants some.
    """
    longest, reasoning = _planned_for(run, config, names)
    entries = []
    for name in names:
        teacher = config.teachers[name]
        urls = teacher.urls or tuple(endpoints.get(name, ()))
        if teacher.embedded or not urls or _answered(run, config, ledger, name):
            continue
        wants = teacher.reasoning_style != "none" and not no_reasoning and name in reasoning
        entries.append(_Entry("teacher", name, name, teacher, urls, _tokens_of(longest[name]), wants))
    return _checked(run, config, ledger, entries)


def check_judges_answer(run: RunFolder, config: RunConfig, reuse: Sequence[Path] = ()) -> RunConfig:
    """The same for the judges of a run that are models; one whose server is started for the run is not asked.

    `reuse` are ledgers of other runs, whose answers are taken over.
    """
    with closing(Ledger(run.path / "ledger.sqlite")) as ledger:
        for other in reuse:
            ledger.borrow(other)
        entries = [entry for entry in _judges(config) if not ledger.lends("judge", entry.teacher.model)]
        return _checked(run, config, ledger, entries)


def _judges(config: RunConfig) -> list[_Entry]:
    entries = []
    for judge_name in config.judging.judges:
        judge = config.judges[judge_name]
        if judge.teacher is None:
            continue
        entry = config.judge_teachers[judge.teacher].model_copy(update={"sampling": judge.sampling})
        if entry.embedded or not entry.urls:
            continue
        # What is judged is not known before it is there: as long as it may be shown at once.
        shown = len(rubric("patterns")) if judge.kind == "patterns" else 0
        prompt = _tokens_of(shown + judge.window_chars)
        entries.append(_Entry("judge", judge_name, judge.teacher, entry, entry.urls, prompt))
    return entries


def _planned_for(run: RunFolder, config: RunConfig, names: Collection[str]) -> tuple[dict[str, int], set[str]]:
    """Bytes of the longest prompt of each teacher, and the teachers whose own reasoning a planned variant takes; other
    variants have it written out."""
    longest, reasoning = dict.fromkeys(names, 0), set[str]()
    for ask in plan(config, prompts_of(run)):
        if ask.teacher in longest:
            size = sum(len(message["content"].encode()) for message in ask.messages)
            longest[ask.teacher] = max(longest[ask.teacher], size)
            if variant(ask.variant).teacher == "reasoning":
                reasoning.add(ask.teacher)
    return longest, reasoning


def _tokens_of(size: int) -> int:
    return max(size // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS, QUESTION_TOKENS)


def _answered(run: RunFolder, config: RunConfig, ledger: Ledger, name: str) -> bool:
    """Whether the ledger holds answers of a teacher under its settings."""
    asks = islice(plan(config, prompts_of(run), teacher=name), _LOOKED_AT)
    return any(ledger.has(ask.key) for ask in asks)


def _checked(run: RunFolder, config: RunConfig, ledger: Ledger, entries: Sequence[_Entry]) -> RunConfig:
    left = []
    for entry in entries:
        ledger.use(PREFLIGHT, entry.key)
        if not ledger.has(entry.key) and not ledger.adopt(entry.key):
            left.append(entry)
    if not left:
        return config
    for entry in left:
        _say(f"{entry.role} {entry.holder}: one question first, to {entry.teacher.model} at {', '.join(entry.urls)}")
    changed: list[tuple[_Entry, Teacher]] = []
    for entry, found in zip(left, asyncio.run(_ask_all(left)), strict=True):
        if isinstance(found, NoAnswer):
            # The requests that follow are patient.
            _say(f"{entry.role} {entry.holder}: {found} The run goes on, and asks again.")
            continue
        for line in found.changes:
            _say(f"{entry.role} {entry.holder}: {line}; kept in run.yaml")
        if found.teacher != entry.teacher:
            changed.append((entry, found.teacher))
        taken = _Entry(entry.role, entry.holder, entry.name, found.teacher, (found.url,), 0)
        ledger.put(taken.key, found.teacher.model, found.reply)
        ledger.use(PREFLIGHT, taken.key)
        _say(f"{entry.role} {entry.holder}: answers, {_shown(entry, found)}")
    if not changed:
        return config
    return change_config(run, lambda now: _with(now, changed))


async def _ask_all(entries: Sequence[_Entry]) -> list[FirstAnswer | NoAnswer]:
    """What each entry answers, a `NoAnswer` only where asking later may help.

    Raises:
        UserError: the first that cannot be asked, in the order of entries.
    """
    found = await asyncio.gather(*(_ask(entry) for entry in entries), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not (isinstance(one, NoAnswer) and one.passing):
            raise one
    return [one for one in found if isinstance(one, FirstAnswer | NoAnswer)]


async def _ask(entry: _Entry) -> FirstAnswer:
    """The answer of the first of an entry's servers that is there."""
    failure: NoAnswer | None = None
    for url in entry.urls:
        try:
            found = await ask_first(entry.name, entry.teacher, url, entry.prompt_tokens)
        except NoAnswer as error:
            failure = failure or error
            continue
        if entry.wants_reasoning and found.shows_no_reasoning:
            raise UserError(_no_reasoning(entry, found))
        return found
    assert failure is not None
    raise failure


def _no_reasoning(entry: _Entry, found: FirstAnswer) -> str:
    if elsewhere := reasoning_elsewhere(found):
        return (
            f"Teacher '{entry.name}' gives its reasoning as '{elsewhere}', which reasoning_style "
            f"{entry.teacher.reasoning_style} rules out. Go on with: --set teachers.{entry.name}.reasoning_style=auto"
        )
    return (
        f"Teacher '{entry.name}' ({entry.teacher.model} at {found.url}) shows no reasoning, and variants of this run "
        "are made of it. Name a model that reasons and shows it; start vLLM with its family's parser (`saferthoughts "
        f"teachers serve {entry.teacher.model}` knows it); or go on without: --allow-no-reasoning for this call, "
        f"--set teachers.{entry.name}.reasoning_style=none for the run."
    )


def _shown(entry: _Entry, found: FirstAnswer) -> str:
    took = f"{found.reply.output_tokens} tokens in {found.reply.latency_s:.1f} s"
    if entry.role == "judge":
        return took
    source = found.thought.source
    return f"{'without reasoning' if source == 'none' else f'with reasoning ({source})'}, {took}"


def _with(config: RunConfig, changed: Sequence[tuple[_Entry, Teacher]]) -> RunConfig:
    """The configuration with what the servers take in place of what they refuse."""
    teachers, judges, judge_teachers = dict(config.teachers), dict(config.judges), dict(config.judge_teachers)
    for entry, taken in changed:
        if entry.role == "teacher":
            teachers[entry.name] = taken
            continue
        judges[entry.holder] = judges[entry.holder].model_copy(update={"sampling": taken.sampling})
        asked = judge_teachers[entry.name]
        judge_teachers[entry.name] = asked.model_copy(update={"limit_field": taken.limit_field})
    return config.model_copy(update={"teachers": teachers, "judges": judges, "judge_teachers": judge_teachers})


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
