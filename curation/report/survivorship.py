"""Which prompts live through the checks, in which variant, and what that does to the mixture of prompts.

Reads prompts, responses, accepted, rejected and, where repair ran, repairs of a run; writes nothing. A configuration is
a variant's harmful rows, or `benign`. A prompt survives in a configuration where at least one of its rows is accepted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from pipelines.runs import RunFolder
from pipelines.statistics import dependence, wilson

# Takes rows, never prompts: another attempt at the same row is kept, or fails by itself.
SUPERSEDED = "superseded"
DIMENSIONS = ("category", "template")


@dataclass(frozen=True, slots=True)
class Candidate:
    """The accepted response that represents a prompt in a configuration, and its stratum."""

    response_id: str
    prompt_id: str
    config: str
    category: str
    template: str

    @property
    def stratum(self) -> str:
        """Category and template as one word."""
        return f"{self.category or '-'}/{self.template or 'bare'}"


@dataclass(frozen=True, slots=True)
class Loss:
    """prompts = survivors + lost. `taken` counts for each check the lost prompts to which it objects; `alone` those to
    which no other check does. A prompt can be taken by several."""

    config: str
    prompts: int
    survivors: int
    lost: int
    taken: Mapping[str, int]
    alone: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Bias:
    """One category or template of a configuration: prompts and survivors, their shares, and the survival rate with its
    95 % Wilson interval."""

    config: str
    dimension: str
    value: str
    prompts: int
    survivors: int
    before: float
    after: float
    survival: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """By how much the share grew."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Dependence:
    """Chi-square test of survival against a dimension; p is None where nothing, or everything, was lost."""

    config: str
    dimension: str
    chi2: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Survivorship:
    """All of it: `asked` has a candidate without a response for each prompt of a configuration."""

    asked: tuple[Candidate, ...]
    survivors: tuple[Candidate, ...]
    losses: tuple[Loss, ...]
    biases: tuple[Bias, ...]
    dependences: tuple[Dependence, ...]


def survivorship(run: RunFolder, variants: Iterable[str]) -> Survivorship:
    """Count who survives in the given variants and among benign prompts.

    Raises:
        UserError: a table is missing or not readable.
    """
    chosen = set(variants)
    prompts = {
        row["prompt_id"]: row for row in _columns(run, "prompts", ["prompt_id", "kind", "category", "template_id"])
    }
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    objections: dict[str, set[str]] = defaultdict(set)
    for row in _columns(run, "rejected", ["response_id", "check_name"]):
        objections[row["response_id"]].add(row["check_name"])
    preferred = {row["response_id"] for row in _repairs(run) if row["chosen"]}
    rows: dict[tuple[str, str], list[str]] = {}
    for row in _columns(run, "responses", ["response_id", "prompt_id", "variant"]):
        benign = prompts[row["prompt_id"]]["kind"] == "benign"
        if benign or row["variant"] in chosen:
            key = ("benign" if benign else row["variant"], row["prompt_id"])
            rows.setdefault(key, []).append(row["response_id"])
    asked, survivors = [], []
    lost: dict[tuple[str, str], set[str]] = {}
    for (config, prompt_id), ids in sorted(rows.items()):
        kept = sorted((name not in preferred, name) for name in ids if name in accepted)
        prompt = prompts[prompt_id]
        place = (prompt_id, config, prompt["category"], prompt["template_id"])
        asked.append(Candidate("", *place))
        if kept:
            survivors.append(Candidate(kept[0][1], *place))
        else:
            lost[config, prompt_id] = set().union(*(objections[name] for name in ids)) - {SUPERSEDED}
    if len(asked) != len(survivors) + len(lost):
        raise RuntimeError(f"{len(asked)} prompts were asked, {len(survivors)} survive and {len(lost)} are lost")
    configs = list(dict.fromkeys(item.config for item in asked))
    biases = [bias for name in configs for bias in _biases(name, asked, survivors)]
    return Survivorship(
        asked=tuple(asked),
        survivors=tuple(survivors),
        losses=tuple(_loss(name, asked, lost) for name in configs),
        biases=tuple(biases),
        dependences=tuple(_dependence(name, dimension, biases) for name in configs for dimension in DIMENSIONS),
    )


def _columns(run: RunFolder, table: str, names: list[str]) -> list[dict[str, str]]:
    with run.opened(table) as file:
        found: pa.Table = file.read(columns=names)
    return list(found.to_pylist())


def _repairs(run: RunFolder) -> list[dict[str, str]]:
    return _columns(run, "repairs", ["response_id", "chosen"]) if run.table_path("repairs").exists() else []


def _loss(config: str, asked: list[Candidate], lost: Mapping[tuple[str, str], set[str]]) -> Loss:
    own = [checks for (name, _), checks in lost.items() if name == config]
    prompts = sum(item.config == config for item in asked)
    taken = Counter(check for checks in own for check in checks)
    alone = Counter(next(iter(checks)) for checks in own if len(checks) == 1)
    return Loss(config, prompts, prompts - len(own), len(own), dict(sorted(taken.items())), dict(sorted(alone.items())))


def survival_counts(db: duckdb.DuckDBPyConnection) -> tuple[list[Bias], list[Dependence]]:
    """What `survivorship` has of biases and dependences, counted by DuckDB: for runs of any size.

    Args:
        db: A connection of `curation.sql.views.open_views`.
    """
    rows = db.sql(_SURVIVAL).fetchall()
    configs = list(dict.fromkeys(row[0] for row in rows))
    biases: list[Bias] = []
    for config in configs:
        for dimension in DIMENSIONS:
            own = [row for row in rows if row[:2] == (config, dimension)]
            before, after = (Counter({row[2]: row[place] for row in own}) for place in (3, 4))
            biases += _bias(config, dimension, before, after)
    return biases, [_dependence(name, dimension, biases) for name in configs for dimension in DIMENSIONS]


_SURVIVAL = """
    WITH asked AS (
        SELECT CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config, prompt_id,
            any_value(prompts.category) AS category, any_value(prompts.template_id) AS template,
            bool_or(response_id IN (SELECT response_id FROM accepted)) AS survived
        FROM responses JOIN prompts USING (prompt_id)
        GROUP BY config, prompt_id
    )
    SELECT config, 'category' AS dimension, category AS value, count(*), count(*) FILTER (survived)
    FROM asked GROUP BY config, category
    UNION ALL
    SELECT config, 'template', template, count(*), count(*) FILTER (survived)
    FROM asked GROUP BY config, template
    ORDER BY config, dimension, value
"""


def _biases(config: str, asked: list[Candidate], survivors: list[Candidate]) -> Iterable[Bias]:
    for dimension in DIMENSIONS:
        before = Counter(getattr(item, dimension) for item in asked if item.config == config)
        after = Counter(getattr(item, dimension) for item in survivors if item.config == config)
        yield from _bias(config, dimension, before, after)


def _bias(config: str, dimension: str, before: Counter[str], after: Counter[str]) -> Iterable[Bias]:
    for value, prompts in sorted(before.items()):
        kept = after[value]
        rate = wilson(kept, prompts)
        share = kept / after.total() if after.total() else 0.0
        yield Bias(
            config, dimension, value, prompts, kept, prompts / before.total(), share, rate.rate, rate.low, rate.high
        )


def _dependence(config: str, dimension: str, biases: list[Bias]) -> Dependence:
    own = [item for item in biases if (item.config, item.dimension) == (config, dimension)]
    table = [[item.survivors for item in own], [item.prompts - item.survivors for item in own]]
    if len(own) < 2 or not all(sum(row) for row in table):
        return Dependence(config, dimension, None, None)
    return Dependence(config, dimension, *dependence(table))
