"""The first question of a run to each teacher and judge, so that what cannot work is found before it is paid for.

Reads run.yaml, the prompts and the ledger; writes the answer to the ledger, so that nobody is asked twice, and to
run.yaml what a server does not take (a lower max_tokens, no temperature): it is the sampling of every answer that
follows. Of several servers each is asked, at the same time: the run goes on without those that are not there, which
the requests that follow look for, and stops at one that answers and refuses. A single server is not asked where the
ledger holds answers under the same settings; one that was added to others is, and has to take them. The embedded
rehearsal teacher is not asked.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import UserError
from pipelines.event_loops import outside_loop
from pipelines.generate.plan import plan, prompts_of, request_fields
from pipelines.judges.patterns import rubric
from pipelines.progress import console
from pipelines.prompts.variant import variant
from pipelines.runner.estimate import Kind
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, change_config
from pipelines.settings.teacher import Teacher
from pipelines.teachers.first_question import (
    MESSAGES,
    QUESTION_TOKENS,
    FirstAnswer,
    NoAnswer,
    ask_first,
    reasoning_elsewhere,
)
from pipelines.teachers.ledger import PREFLIGHT, Ledger, request_key

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

    `holder` is the key of run.yaml that its sampling belongs to: the teacher's name, or the judge's. `settled` says
    that the run has answers under its settings, which cannot change any more.
    """

    role: Literal["teacher", "judge"]
    holder: str
    name: str
    teacher: Teacher
    urls: tuple[str, ...]
    prompt_tokens: int
    wants_reasoning: bool = False
    settled: bool = False

    def keys(self, teacher: Teacher) -> dict[str, str]:
        """The ledger's keys of its first questions, by URL, where it is asked as `teacher`."""
        return {url: first_key(teacher, url) for url in self.urls}


def first_key(teacher: Teacher, url: str) -> str:
    """The ledger's key of the first question to one server of an entry, as it is asked in its role."""
    return request_key(teacher.model, MESSAGES, {**request_fields(teacher, 0), "at": url}, _SAMPLE)


def check_teachers_answer(
    run: RunFolder,
    config: RunConfig,
    ledger: Ledger,
    names: Collection[str],
    kinds: Iterable[Kind],
    endpoints: Mapping[str, Sequence[str]],
    no_reasoning: bool = False,
) -> RunConfig:
    """Ask each of a run's teachers its first question, where it has not answered under its settings before.

    Args:
        names: The teachers that will be asked.
        kinds: The rows that are planned, as `survey` counts them.
        endpoints: Base URLs of each.
        no_reasoning: Go on with a teacher that shows no reasoning.

    Returns:
        The run's configuration, as the teachers take it.

    Raises:
        UserError: a teacher does not answer, shows no reasoning where a variant wants some, or has a server that does
            not take the settings under which others answered.
    """
    longest, reasoning = dict.fromkeys(names, 0), set[str]()
    for kind in kinds:
        longest[kind.teacher] = max(longest.get(kind.teacher, 0), kind.longest)
        # Other variants have the reasoning written out.
        if variant(kind.variant).teacher == "reasoning":
            reasoning.add(kind.teacher)
    entries = []
    for name in names:
        teacher = config.teachers[name]
        urls = teacher.urls or tuple(endpoints.get(name, ()))
        settled = _answered(run, config, ledger, name)
        if teacher.embedded or not urls or (settled and len(urls) == 1):
            continue
        wants = teacher.reasoning_style != "none" and not no_reasoning and name in reasoning
        entries.append(_Entry("teacher", name, name, teacher, urls, _tokens_of(longest[name]), wants, settled))
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
        if config.judging.logprobs:
            # A server that refuses them would refuse every row.
            entry = entry.model_copy(update={"extra_body": {**entry.extra_body, "logprobs": True}})
        # What is judged is not known before it is there: as long as it may be shown at once.
        shown = len(rubric("patterns") if judge.kind == "patterns" else judge.policy or "")
        prompt = _tokens_of(shown + judge.window_chars)
        entries.append(_Entry("judge", judge_name, judge.teacher, entry, entry.urls, prompt))
    return entries


def _tokens_of(size: int) -> int:
    return max(size // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS, QUESTION_TOKENS)


def _answered(run: RunFolder, config: RunConfig, ledger: Ledger, name: str) -> bool:
    """Whether the ledger holds answers of a teacher under its settings."""
    asks = islice(plan(config, prompts_of(run), teacher=name), _LOOKED_AT)
    return any(ledger.has(ask.key) for ask in asks)


def _checked(run: RunFolder, config: RunConfig, ledger: Ledger, entries: Sequence[_Entry]) -> RunConfig:
    left: list[tuple[_Entry, list[str]]] = []
    for entry in entries:
        missing = []
        for url, key in entry.keys(entry.teacher).items():
            ledger.use(PREFLIGHT, key)
            if not ledger.has(key) and not ledger.adopt(key):
                missing.append(url)
        if missing:
            left.append((entry, missing))
    if not left:
        return config
    for entry, urls in left:
        each = " each" if len(urls) > 1 else ""
        _say(f"{entry.role} {entry.holder}: one question first, to {entry.teacher.model} at {', '.join(urls)}{each}")
    changed: list[tuple[_Entry, Teacher]] = []
    for (entry, _), found in zip(left, outside_loop(lambda: asyncio.run(_ask_all(left))), strict=True):
        if (taken := _noted(ledger, entry, found)) != entry.teacher:
            changed.append((entry, taken))
    if not changed:
        return config
    return change_config(run, lambda now: _with(now, changed))


def _noted(ledger: Ledger, entry: _Entry, found: Sequence[FirstAnswer | NoAnswer]) -> Teacher:
    """The entry as all of its servers take it, with their answers kept and what they are told of."""
    answers = [one for one in found if isinstance(one, FirstAnswer)]
    taken = _as_all_take_it(entry.teacher, [answer.teacher for answer in answers])
    if entry.settled and taken != entry.teacher:
        odd = next(answer for answer in answers if answer.changes)
        raise UserError(
            f"{entry.role} {entry.holder}: {odd.url} does not take the settings under which this run has answers "
            f"({'; '.join(odd.changes)}). Take it out of base_urls, or ask it in a new run."
        )
    for line in dict.fromkeys(line for answer in answers for line in answer.changes):
        _say(f"{entry.role} {entry.holder}: {line}; kept in run.yaml")
    keys = entry.keys(taken)
    for answer in answers:
        ledger.put(keys[answer.url], taken.model, answer.reply)
        ledger.use(PREFLIGHT, keys[answer.url])
        where = f" at {answer.url}" if len(entry.urls) > 1 else ""
        _say(f"{entry.role} {entry.holder}: answers{where}, {_shown(entry, answer)}")
    for one in found:
        if isinstance(one, NoAnswer):
            # The requests that follow are patient, and look for a server that is down until it is back.
            how = "with the others, and asks this one once it is back" if answers else "and asks again"
            _say(f"{entry.role} {entry.holder}: {one} The run goes on {how}.")
    return taken


def _as_all_take_it(teacher: Teacher, taken: Sequence[Teacher]) -> Teacher:
    """One entry for all servers: the lowest of their limits, and without what any of them refuses."""
    joint = teacher
    for one in taken:
        sampling: dict[str, Any] = {
            name: None
            for name in ("temperature", "top_p", "seed")
            if getattr(one.sampling, name) != getattr(teacher.sampling, name)
        }
        limits = [entry.sampling.max_tokens for entry in (joint, one) if entry.sampling.max_tokens is not None]
        sampling["max_tokens"] = min(limits, default=None)
        update: dict[str, Any] = {"sampling": joint.sampling.model_copy(update=sampling)}
        if one.limit_field != teacher.limit_field:
            update["limit_field"] = one.limit_field
        joint = joint.model_copy(update=update)
    return joint


async def _ask_all(entries: Sequence[tuple[_Entry, Sequence[str]]]) -> list[list[FirstAnswer | NoAnswer]]:
    """What the servers of each entry answer, all asked at once.

    Raises:
        UserError: the first that cannot be asked, in the order of entries.
    """
    groups = [asyncio.gather(*(_ask(entry, url) for url in urls), return_exceptions=True) for entry, urls in entries]
    found = await asyncio.gather(*groups)
    return [_usable(entry, urls, answers) for (entry, urls), answers in zip(entries, found, strict=True)]


def _usable(
    entry: _Entry, urls: Sequence[str], found: Sequence[FirstAnswer | BaseException]
) -> list[FirstAnswer | NoAnswer]:
    """The answers of an entry's servers, a `NoAnswer` only where the run goes on all the same.

    Raises:
        UserError: one that is there cannot be asked, or none is there.
    """
    # A server that answered in an earlier call is not asked anew.
    others = [url for url in entry.urls if url not in urls]
    others += [one.url for one in found if isinstance(one, FirstAnswer)]
    usable: list[FirstAnswer | NoAnswer] = []
    for one in found:
        if isinstance(one, FirstAnswer) or (isinstance(one, NoAnswer) and (one.passing or (one.absent and others))):
            usable.append(one)
        elif isinstance(one, UserError) and others:
            raise UserError(
                f"{one} The others answer ({', '.join(others)}): mend this one, or take it out of base_urls."
            )
        elif isinstance(one, BaseException):
            raise one
    return usable


async def _ask(entry: _Entry, url: str) -> FirstAnswer:
    try:
        found = await ask_first(entry.name, entry.teacher, url, entry.prompt_tokens)
    except NoAnswer as error:
        if entry.role == "judge" and "logprobs" in str(error):
            raise UserError(
                f"{error} Judge without probabilities: --no-logprobs, or --repeat 3 in their place."
            ) from error
        raise
    if entry.wants_reasoning and found.shows_no_reasoning:
        raise UserError(_no_reasoning(entry, found))
    return found


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
