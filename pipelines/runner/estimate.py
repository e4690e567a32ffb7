"""What a run will ask and what that will take: requests, tokens, US dollars, time, for generation, judging and repair.

Reads run.yaml, prompts.parquet and the ledger, and takes answers of borrowed ledgers over. Before a variant has answers
of its own, the study's lengths stand in for them; what the run's own answers took replaces them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.generate.plan import plan, prompts_of
from pipelines.judges.guard_forms import FORMS, guard_of
from pipelines.judges.patterns import rubric
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import Judge
from pipelines.settings.teacher import Teacher
from pipelines.study import FLAGGED_SHARE, mean_length
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.limits import CHARS_PER_TOKEN
from pipelines.teachers.reply import Reply

# Answers of one variant that are looked at; more make the mean no better.
_SAMPLE = 200
# Where the study is silent: the share of a variant's rows that is asked for again, and tokens of a verdict before one
# was seen. Llama Guard answers with two words.
_FLAGGED_ELSEWHERE = 0.5
_VERDICT_TOKENS = 300.0
_GUARD_TOKENS = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """Requests and what they take. `cost` counts those with a price, `unpriced` names the others' teachers; `seconds`
    is None where no speed is known."""

    requests: float = 0.0
    tokens: float = 0.0
    cost: float = 0.0
    seconds: float | None = 0.0
    priced: bool = False
    unpriced: frozenset[str] = frozenset()

    def __add__(self, other: "Load") -> "Load":
        slow = None if self.seconds is None or other.seconds is None else self.seconds + other.seconds
        return Load(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost + other.cost,
            slow,
            self.priced or other.priced,
            self.unpriced | other.unpriced,
        )

    def words(self) -> str:
        """Tokens, dollars and time, for the terminal."""
        parts = [f"{self.tokens:,.0f} tokens"]
        parts += [f"${self.cost:.2f}"] if self.priced else []
        parts += [_time(self.seconds)] if self.seconds else []
        without = f" (no price for {', '.join(sorted(self.unpriced))})" if self.unpriced else ""
        return f"about {', '.join(parts)}{without}"


@dataclass(frozen=True, slots=True)
class Known:
    """What a ledger tells of models: seconds for each token of output; how many verdicts, with their mean tokens."""

    speeds: Mapping[str, float]
    verdicts: Mapping[str, tuple[int, float, float]]

    @classmethod
    def of(cls, ledger: Ledger) -> "Known":
        """Read a ledger."""
        return cls(ledger.seconds_per_token(), ledger.means_of("judge"))


@dataclass(frozen=True, slots=True)
class Kind:
    """Planned rows that are alike, and the mean of one: tokens in and out; US dollars where its own answers tell.
    `longest`: bytes of the longest prompt."""

    teacher: str
    variant: str
    benign: bool
    planned: int
    missing: int
    sampled: int
    input: float
    output: float
    cost: float | None
    longest: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests planned and missing, what the missing ones take, and what judging and repair take after them.

    `asked` names the teachers of the missing ones, `kinds` are all rows that a teacher answers.
    """

    planned: int
    missing: int
    generation: Load
    judging: Load
    repair: Load
    kinds: tuple[Kind, ...] = ()
    asked: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One or two lines for the terminal."""
        own = sum(kind.sampled for kind in self.kinds)
        guessed = any(kind.missing and not kind.sampled for kind in self.kinds)
        by = [f"the mean of {own} answers"] * bool(own) + ["the study's lengths"] * guessed
        lines = [
            f"{self.missing} of {self.planned} responses are to be asked for: {self.generation.words()}, by "
            f"{' and '.join(by)}"
        ]
        later = [(name, load) for name, load in (("judging", self.judging), ("repair", self.repair)) if load.requests]
        if later:
            with_them = " and ".join(f"{name} (about {load.requests:,.0f} requests)" for name, load in later)
            total = self.generation + self.judging + self.repair
            lines.append(f"with {with_them}: {total.words()} in all")
        return lines


def survey(run: RunFolder, config: RunConfig, ledger: Ledger) -> Estimate:
    """Count the plan against the ledger, taking over what borrowed ledgers have of it.

    Raises:
        UserError: the prompts are missing or not readable.
    """
    planned = 0
    rows: Counter[tuple[str, str, bool]] = Counter()
    missing: Counter[tuple[str, str, bool]] = Counter()
    chars: Counter[tuple[str, str, bool]] = Counter()
    longest: Counter[tuple[str, str, bool]] = Counter()
    sampled: defaultdict[tuple[str, str, bool], list[Reply]] = defaultdict(list)
    for ask in plan(config, prompts_of(run)):
        planned += 1
        if not ask.key:
            continue
        kind = (ask.teacher, ask.variant, ask.benign)
        rows[kind] += 1
        text = "".join([message["content"] for message in ask.messages])
        chars[kind] += len(text)
        longest[kind] = max(longest[kind], len(text.encode()))
        reply, refusal = ledger.known(ask.key)
        if reply is not None:
            if len(sampled[kind]) < _SAMPLE:
                sampled[kind].append(reply)
        elif refusal is None:
            missing[kind] += 1
    kinds = tuple(
        _kind(kind, rows[kind], missing[kind], chars[kind], longest[kind], sampled[kind]) for kind in rows
    )  # fmt: skip
    return estimated(config, ledger, planned, kinds)


def estimated(config: RunConfig, ledger: Ledger, planned: int, kinds: tuple[Kind, ...]) -> Estimate:
    """What rows that are counted already take, as fast as the ledger's models are."""
    known = Known.of(ledger)
    generation = sum((_asked_for(config, known, kind, kind.missing) for kind in kinds), Load())
    judging, repair = _judged(config, known, kinds), _repaired(config, known, kinds)
    asked = tuple(sorted({kind.teacher for kind in kinds if kind.missing}))
    return Estimate(planned, sum(kind.missing for kind in kinds), generation, judging, repair, kinds, asked)


def _kind(
    kind: tuple[str, str, bool], planned: int, missing: int, chars: int, longest: int, replies: list[Reply]
) -> Kind:
    teacher, name, benign = kind
    count = len(replies)
    if not count:
        read, written = chars / planned / CHARS_PER_TOKEN, mean_length(name, benign)
        return Kind(teacher, name, benign, planned, missing, 0, read, written, None, longest)
    read, written = (sum(getattr(reply, field) for reply in replies) / count for field in _TOKENS)
    costs = [reply.cost for reply in replies if reply.cost is not None]
    cost = sum(costs) / len(costs) if costs else None
    return Kind(teacher, name, benign, planned, missing, count, read, written, cost, longest)


_TOKENS = ("input_tokens", "output_tokens")


def _asked_for(config: RunConfig, known: Known, kind: Kind, requests: float) -> Load:
    teacher = config.teachers[kind.teacher]
    return load_of(kind.teacher, teacher, known, requests, kind.input, kind.output, kind.cost)


def load_of(
    name: str, teacher: Teacher, known: Known, requests: float, read: float, written: float, cost: float | None = None
) -> Load:
    """What requests to one teacher take, by the tokens of each; time by how fast the model has answered so far."""
    if not requests:
        return Load()
    if cost is None and teacher.price is not None:
        cost = (read * teacher.price.input + written * teacher.price.output) / 1e6
    speed = known.speeds.get(teacher.model)
    at_once = min(teacher.in_flight * max(len(teacher.urls), 1), max(requests, 1.0))
    seconds = None if speed is None else requests * written * speed / at_once
    if seconds is not None and teacher.requests_per_minute:
        seconds = max(seconds, requests / teacher.requests_per_minute * 60)
    if seconds is not None and teacher.tokens_per_minute:
        seconds = max(seconds, requests * (read + written) / teacher.tokens_per_minute * 60)
    unpriced = frozenset() if cost is not None or teacher.embedded else frozenset({name})
    return Load(requests, requests * (read + written), requests * (cost or 0.0), seconds, cost is not None, unpriced)


def _judged(config: RunConfig, known: Known, kinds: Iterable[Kind]) -> Load:
    """What is left of judging every row once by every judge that is a model."""
    from pipelines.judges.local.cascade import expected_share

    total = Load()
    done = {model: float(answers) for model, (answers, _, _) in known.verdicts.items()}
    rows = {kind: float(kind.planned) for kind in kinds}
    for judge in _asked_judges(config):
        model = config.judge_teachers[judge.teacher or ""].model
        judged = done.get(model, 0.0) * _at_once(config, judge)
        left = max(sum(rows.values()) - judged, 0.0)
        done[model] = max(judged - sum(rows.values()), 0.0)
        share = left / max(sum(rows.values()), 1.0)
        share *= expected_share(judge, sum(rows.values()))
        asked = {kind: count * share for kind, count in rows.items()}
        for _ in range(config.judging.repeat):
            total += _verdicts(config, known, judge, asked, _at_once(config, judge))
    return total


def _at_once(config: RunConfig, judge: Judge) -> float:
    """About how many responses one request shows a judge, no more than there are to a prompt; below 1 for a guard that
    is asked about each policy by itself."""
    if judge.form is not None:
        return 1 / len(guard_of(judge).parts)
    return min(judge.rows_per_request, max(len(config.variants), 1))


def _verdicts(
    config: RunConfig,
    known: Known,
    judge: Judge,
    rows: Mapping[Kind, float],
    at_once: float = 1,
) -> Load:
    """One judge's verdicts on so many rows of each kind, `at_once` by one request."""
    name = judge.teacher or ""
    teacher = config.judge_teachers[name]
    count = sum(rows.values())
    if not count:
        return Load()
    if teacher.model in known.verdicts:
        _, read, written = known.verdicts[teacher.model]
    else:
        patterns = judge.kind == "patterns"
        terse = judge.form is not None and FORMS[judge.form].terse
        written = _GUARD_TOKENS if terse else _VERDICT_TOKENS * max(at_once, 1)
        read = sum(
            rows[kind]
            * (kind.input + kind.output * max(at_once, 1) + (_rubric_tokens(kind) if patterns else 0.0))
            for kind in rows
        ) / count  # fmt: skip
    return load_of(name, teacher, known, count / at_once, read, written)


def _rubric_tokens(kind: Kind) -> float:
    return len(rubric("over_refusal" if kind.benign else "patterns")) / CHARS_PER_TOKEN


def _repaired(config: RunConfig, known: Known, kinds: Iterable[Kind]) -> Load:
    """What asking again for flagged rows takes, the new rows' verdicts included, where half of the further attempts
    are used. Repair that is done already is not taken off."""
    flagged: dict[Kind, float] = {}
    for kind in kinds:
        if not kind.benign and config.repairs(kind.variant):
            flagged[kind] = kind.planned * FLAGGED_SHARE.get(kind.variant, _FLAGGED_ELSEWHERE)
    return repairs_of(config, known, flagged)


def repairs_of(config: RunConfig, known: Known, flagged: Mapping[Kind, float]) -> Load:
    """What repair takes of so many flagged rows of each kind."""
    if not config.repair.attempts:
        return Load()
    attempts = (1 + config.repair.attempts) / 2
    asked = {kind: count * attempts for kind, count in flagged.items()}
    total = sum((_asked_for(config, known, kind, count) for kind, count in asked.items()), Load())
    asked_of = ((judge, 1 / len(guard_of(judge).parts) if judge.form else 1) for judge in _asked_judges(config))
    return sum((_verdicts(config, known, judge, asked, at_once) for judge, at_once in asked_of), total)


def _asked_judges(config: RunConfig) -> list[Judge]:
    return [config.judges[name] for name in config.judging.judges if config.judges[name].teacher]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
