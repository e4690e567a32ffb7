"""Accepted rows to selected rows: a seeded, stratified draw of each variant's harmful rows, and of benign ones.

Reads what `survivorship.py` reads, and student_nll.parquet where it draws by it; writes selected.parquet (response_id,
config, stratum). Run it with `saferthoughts select RUN`. A stratum is a behaviour category with a jailbreak template;
the draw follows the shares of the run's prompts, not of the survivors, so that it mends what the checks shifted as far
as survivors go; or it is a plain random one (`selection.stratified: false`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import inf
from types import MappingProxyType

import pyarrow as pa

from curation.report.survivorship import Candidate, Survivorship, survivorship
from pipelines.errors import UserError, unknown
from pipelines.freshness import made_from, require_fresh
from pipelines.records import content_id
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import RunConfig, Selection, load_config
from pipelines.settings.old_names import first_name

BENIGN = "benign"
_SELECTED = pa.schema([(name, pa.string()) for name in ("response_id", "config", "stratum")])


@dataclass(frozen=True, slots=True)
class Draw:
    """One configuration's draw: rows wanted, prompts that could be drawn, rows drawn."""

    config: str
    wanted: int
    survivors: int
    drawn: int


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """What was drawn from what."""

    settings: Selection
    draws: tuple[Draw, ...]
    survivorship: Survivorship

    @property
    def short(self) -> str:
        """One line on the configurations that have fewer survivors than wanted, "" where all have enough."""
        few = [f"{item.config} {item.survivors} of {item.wanted}" for item in self.draws if item.drawn < item.wanted]
        return f"fewer survivors than wanted, all taken: {', '.join(few)}" if few else ""


def select(run: RunFolder, settings: Selection | None = None) -> SelectionResult:
    """Draw the selection by the given settings, or by the run's own.

    Raises:
        UserError: a table is missing, or a variant is not one of the run's.
    """
    config = load_config(run)
    settings = settings or config.selection
    variants = _variants(config, settings)
    require_fresh(run, "accepted")
    found = survivorship(run, variants)
    likely = _likelihoods(run, settings)
    pools: dict[str, list[Candidate]] = {name: [] for name in (*variants, BENIGN)}
    for item in found.survivors:
        pools[item.config].append(item)
    if settings.paired:
        common = set.intersection(*({item.prompt_id for item in pools[name]} for name in variants))
        pools |= {name: [item for item in pools[name] if item.prompt_id in common] for name in variants}
    rows: list[dict[str, str]] = []
    draws = []
    for name, pool in pools.items():
        wanted = settings.benign if name == BENIGN else settings.harmful
        # Paired draws share one order of prompts, so that every variant gets the same ones.
        order = f"{config.seed}" if settings.paired else f"{config.seed}/{first_name(name)}"
        asked = [item for item in found.asked if item.config == name] if settings.stratified else None
        chosen = draw(pool, asked, wanted, order, likely)
        draws.append(Draw(name, wanted, len(pool), len(chosen)))
        rows += [{"response_id": item.response_id, "config": name, "stratum": item.stratum} for item in chosen]
    run.write("selected", pa.Table.from_pylist(rows, schema=_SELECTED))
    run.record(
        "select",
        inputs=made_from(run, "prompts", "responses", "accepted", "rejected", *([settings.by] if settings.by else [])),
        outputs={"selected.parquet": file_hash(run.table_path("selected"))},
        settings=settings.model_dump(mode="json"),
        seed=config.seed,
        draws=[asdict(item) for item in draws],
    )
    return SelectionResult(settings, tuple(draws), found)


def _variants(config: RunConfig, settings: Selection) -> tuple[str, ...]:
    for name in settings.variants:
        if name not in config.variants:
            raise unknown("variant of the run", name, config.variants)
    return tuple(dict.fromkeys(settings.variants)) or config.variants


def _likelihoods(run: RunFolder, settings: Selection) -> dict[str, float]:
    """The student's mean negative log-likelihood of each response, where the draw is by it."""
    if settings.by is None:
        return {}
    if settings.paired:
        raise UserError(
            "--by student_nll takes what the student finds likeliest of each variant, and --paired the same prompts of "
            "all: choose one (--per-variant)."
        )
    if not run.table_path(settings.by).exists():
        again = f"saferthoughts student nll {run.name} --student CHECKPOINT"
        raise UserError(f"{run.path} has no student_nll.parquet yet. Run first: {again}")
    require_fresh(run, settings.by)
    table = run.read(settings.by)
    found = zip(table["response_id"].to_pylist(), table["student_nll"].to_pylist(), strict=True)
    return {name: value for name, value in found if value is not None}


def selected_rows(run: RunFolder) -> dict[str, str]:
    """The configuration of each selected response by its id; empty where nothing was selected.

    Raises:
        UserError: the selection was drawn from other accepted rows than there are now.
    """
    if not run.table_path("selected").exists():
        return {}
    stage = run.stage("select")
    if stage is None or stage["inputs"]["accepted.parquet"] != file_hash(run.require("accepted")):
        raise UserError(
            f"{run.table_path('selected')} was drawn from other accepted rows than there are now. Draw it again: "
            f"saferthoughts select {run.name}"
        )
    table = run.read("selected")
    return dict(zip(table["response_id"].to_pylist(), table["config"].to_pylist(), strict=True))


def draw(
    pool: Iterable[Candidate],
    asked: Iterable[Candidate] | None,
    wanted: int,
    order: str,
    likely: Mapping[str, float] = MappingProxyType({}),
) -> list[Candidate]:
    """Draw exactly min(wanted, len(pool)) candidates, strata in the proportions of `asked`, or at random where it is
    None; ordered by response id.

    `order` seeds it. A candidate's place depends on its prompt alone, so another survivor moves few others; those with
    a value in `likely` come first, the lowest before the others.
    """
    strata: dict[str, list[Candidate]] = defaultdict(list)
    for item in pool:
        strata["" if asked is None else item.stratum].append(item)
    weights = Counter([""] if asked is None else (item.stratum for item in asked))
    counts = allocate({name: len(items) for name, items in strata.items()}, weights, wanted)
    chosen = []
    for name, items in strata.items():
        places = {item: (likely.get(item.response_id, inf), content_id(order, item.prompt_id)) for item in items}
        chosen += sorted(items, key=places.__getitem__)[: counts[name]]
    return sorted(chosen, key=lambda item: item.response_id)


def allocate(available: Mapping[str, int], weights: Mapping[str, int], wanted: int) -> dict[str, int]:
    """How many rows each stratum gives: by largest remainder of the weights, no more than there are.

    What a stratum is short of is shared among the others, so the sum is exactly min(wanted, sum(available)). Integers
    throughout: a rounding error could lose a row. Ties go to the stratum whose name comes first.
    """
    counts = dict.fromkeys(available, 0)
    left = min(wanted, sum(available.values()))
    open_strata = sorted(name for name, count in available.items() if count)
    while open_strata:
        total = sum(weights[name] for name in open_strata)
        full = [name for name in open_strata if left * weights[name] > available[name] * total]
        if not full:
            break
        for name in full:
            counts[name] = available[name]
        left -= sum(available[name] for name in full)
        open_strata = [name for name in open_strata if name not in full]
    if open_strata:
        shares = {name: divmod(left * weights[name], total) for name in open_strata}
        extra = left - sum(whole for whole, _ in shares.values())
        favoured = set(sorted(open_strata, key=lambda name: (-shares[name][1], name))[:extra])
        counts |= {name: whole + (name in favoured) for name, (whole, _) in shares.items()}
    return counts
