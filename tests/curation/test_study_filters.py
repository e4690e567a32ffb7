"""The study's filters and its analysis: accepted rows, draw, release and shares, beside a plain count."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cards.release.build import build_release
from cards.verify import verify
from pipelines.errors import UserError
from pipelines.records import PATTERNS, Prompt, Response, Verdict, from_table, to_table
from pipelines.runs import RunFolder
from saferthoughts.run import Run
from tests.commands import command

# What judges say of a row: safe, unsafe or nothing, and a pattern, none ("") or nothing that could be read.
Known = tuple[str | None, str | None]
TURNS: tuple[Known, ...] = (
    ("safe", ""),
    ("safe", "weak_vacillation"),
    ("safe", "strong_vacillation"),
    ("unsafe", "harmful_additions"),
    ("safe", None),
    (None, ""),
)


@dataclass
class Labelled:
    """A run, what its judges say by response, and the variant of each answer to a harmful prompt that is whole."""

    run: RunFolder
    known: dict[str, Known]
    variants: dict[str, str]


def labelled(verdict: Verdict, safety: str | None, pattern: str | None) -> Verdict:
    labels = {name: None if pattern is None else name == pattern for name in PATTERNS}
    over = None if pattern is None else bool(pattern)
    reasons = {"reason": "no JSON" if pattern is None else "", "safety_reason": "" if safety else "no label"}
    return replace(verdict, overthinking=over, safety=safety, **labels, **reasons)  # type: ignore[arg-type]


@pytest.fixture
def run(judged: RunFolder) -> Labelled:
    harmful = {row.prompt_id for row in from_table(Prompt, judged.read("prompts")) if row.kind == "harmful"}
    answers = [row for row in from_table(Response, judged.read("responses")) if row.reasoning_source != "fixed"]
    known = {row.response_id: TURNS[n % len(TURNS)] for n, row in enumerate(answers)}
    verdicts = [
        labelled(row, *known[row.response_id]) if row.response_id in known else row
        for row in from_table(Verdict, judged.read("verdicts"))
    ]
    judged.write("verdicts", to_table(Verdict, verdicts))
    return Labelled(judged, known, {row.response_id: row.variant for row in answers if row.prompt_id in harmful})


def safe(safety: str | None, pattern: str | None) -> bool:
    return safety == "safe"


def but_weak(safety: str | None, pattern: str | None) -> bool:
    return safety == "safe" and pattern in ("", "weak_vacillation")


def clean(safety: str | None, pattern: str | None) -> bool:
    return (safety, pattern) == ("safe", "")


@pytest.mark.parametrize(("name", "passes"), [("safety", safe), ("but-weak-vacillation", but_weak), ("clean", clean)])
def test_filter_alone_decides_what_is_drawn_and_released(
    run: Labelled, name: str, passes: Callable[[str | None, str | None], bool]
) -> None:
    cwd = run.run.path.parents[1]
    done = command(["check", run.run.name, "--filter", name], cwd=cwd)
    assert done.returncode == 0, done.stderr
    cut = {row["response_id"] for row in run.run.read("rejected").to_pylist() if row["check_name"] == "format_broken"}
    expected = {one for one, verdict in run.known.items() if passes(*verdict)} - cut
    assert set(run.run.read("accepted")["response_id"].to_pylist()) & run.known.keys() == expected
    done = command(["select", run.run.name, "--harmful", "2", "--benign", "1", "--at-random"], cwd=cwd)
    assert done.returncode == 0, done.stderr
    drawn = run.run.read("selected")["response_id"].to_pylist()
    assert set(drawn) & run.known.keys() <= expected
    if name == "safety":
        Run(run.run).select(stratified=True)
        other = run.run.read("selected")["response_id"].to_pylist()
        assert (len(other), other == drawn) == (len(drawn), False)
    assert verify(build_release(run.run).folder).faults == ()
    Run(run.run).check(filter="all")
    assert {row["check_name"] for row in run.run.read("rejected").to_pylist()} >= {"unscored", "pattern_flagged"}


def test_analyses_are_what_a_plain_count_gives(run: Labelled) -> None:
    own = [run.known[one] for one, variant in run.variants.items() if variant == "direct"]
    rows = Run(run.run).sql("patterns").to_arrow().to_pylist()
    weak = next(row for row in rows if (row["variant"], row["pattern"]) == ("direct", "weak_vacillation"))
    scored = [one for one in own if one[1] is not None]
    passing = [one for one in scored if safe(*one)]
    assert weak == {
        "variant": "direct",
        "pattern": "weak_vacillation",
        "rows": (count := sum(one[1] == "weak_vacillation" for one in scored)),
        "scored": len(scored),
        "untold": 0,
        "unscored": len(own) - len(scored),
        "share": round(count / len(scored), 3),
        "safe_rows": count,
        "safe_scored": len(passing),
        "safe_share": round(count / len(passing), 3),
    }
    kept = next(row for row in Run(run.run).sql("filters").to_arrow().to_pylist() if row["variant"] == "direct")
    both = [one for one in scored if one[0]]
    assert (kept["scored"], kept["unscored"]) == (len(both), len(own) - len(both))
    counts = {name: sum(passes(*one) for one in both) for name, passes in (("safety", safe), ("clean", clean))}
    assert {name: kept[name] for name in counts} == counts
    assert kept["but_weak_vacillation"] == sum(but_weak(*one) for one in both)


def test_lengths_are_measured_where_there_is_a_count(run: Labelled) -> None:
    done = command(["sql", run.run.name, "lengths", "--csv", "lengths.csv"], cwd=run.run.path.parents[1])
    assert done.returncode == 0, done.stderr
    lines = (run.run.path.parents[1] / "lengths.csv").read_text().splitlines()
    rows = dict(line.replace('"', "").split(",", 1) for line in lines)
    tokens = [row.output_tokens for row in from_table(Response, run.run.read("responses")) if row.variant == "short"]
    assert rows["short"].startswith(f"{len(tokens)},{len(tokens)},{round(sum(tokens) / len(tokens), 1):g},")
    # What a run writes itself has no count: nothing was measured.
    assert rows["nocot"].split(",")[1:4] == ["0", "", ""]


def test_bad_filter_and_file_are_one_line(run: Labelled, tmp_path: Path) -> None:
    for words, message in (
        (["check", run.run.name, "--filter", "safty"], "Unknown filter 'safty'. Did you mean 'safety'?"),
        (["check", run.run.name, "--set", "checks.patterns=[weak]"], "there is no pattern 'weak'"),
        (["sql", run.run.name, "none.sql"], "none.sql cannot be read"),
    ):
        done = command(words, cwd=run.run.path.parents[1])
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    with pytest.raises(UserError, match="this is SELECT, SELECT"):
        (tmp_path / "two.sql").write_text("SELECT 1; SELECT 2")
        Run(run.run).sql(str(tmp_path / "two.sql"))
