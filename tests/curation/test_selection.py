"""The draw: exact numbers, the prompts' own mixture, the same prompts where pairs are asked for."""

import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cards.release.build import build_release
from curation.report.survivorship import survivorship
from curation.selection import allocate, select
from pipelines.errors import UserError
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.runs import RunFolder
from saferthoughts.run import Run


@pytest.fixture
def checked(released: RunFolder) -> RunFolder:
    shutil.rmtree(released.path / "release")
    return released


STRATA = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.tuples(st.integers(0, 20), st.integers(1, 50)))


@given(STRATA, st.integers(0, 200))
def test_exactly_as_many_are_allotted_as_there_are(strata: dict[str, tuple[int, int]], wanted: int) -> None:
    available = {name: count for name, (count, _) in strata.items()}
    weights = {name: weight for name, (_, weight) in strata.items()}
    counts = allocate(available, weights, wanted)
    assert sum(counts.values()) == min(wanted, sum(available.values()))
    assert all(0 <= counts[name] <= available[name] for name in available)


def test_strata_that_are_not_short_get_their_share() -> None:
    assert allocate({"a": 100, "b": 100}, {"a": 3, "b": 1}, 40) == {"a": 30, "b": 10}
    assert allocate({"a": 5, "b": 100}, {"a": 3, "b": 1}, 40) == {"a": 5, "b": 35}


def test_every_prompt_survives_or_is_lost_to_a_check(checked: RunFolder) -> None:
    found = survivorship(checked, ("direct", "short"))
    for loss in found.losses:
        assert loss.prompts == loss.survivors + loss.lost
        assert loss.lost <= sum(loss.taken.values()) or not loss.lost
    assert {loss.config for loss in found.losses} == {"direct", "short", "benign"}


def test_numbers_asked_for_are_drawn_and_released(checked: RunFolder) -> None:
    done = Run(checked).select(harmful=5, benign=3, variants=("improved", "short"))
    assert {(draw.config, draw.drawn) for draw in done.draws} == {("improved", 5), ("short", 5), ("benign", 3)}
    assert done.short == ""
    released = build_release(checked)
    assert released.rows == {"improved": 5, "short": 5, "benign": 3}
    accepted = set(checked.read("accepted")["response_id"].to_pylist())
    ids = [pq.read_table(path)["id"].to_pylist() for path in released.folder.glob("data/*/*.parquet")]
    assert {name for part in ids for name in part} <= accepted


def test_fewer_survivors_than_wanted_are_all_taken_and_told(checked: RunFolder) -> None:
    done = select(checked)
    assert "fewer survivors than wanted, all taken" in done.short
    assert all(draw.drawn == draw.survivors for draw in done.draws)


def test_pairs_have_the_same_prompts_in_every_variant(checked: RunFolder) -> None:
    Run(checked).select(harmful=4, benign=0, paired=True)
    prompts = {row.response_id: row.prompt_id for row in from_table(Response, checked.read("responses"))}
    drawn: dict[str, set[str]] = {}
    for row in checked.read("selected").to_pylist():
        drawn.setdefault(row["config"], set()).add(prompts[row["response_id"]])
    assert len(drawn) == 6
    assert len({frozenset(ids) for ids in drawn.values()}) == 1
    assert all(len(ids) == 4 for ids in drawn.values())


def test_the_draw_depends_on_ids_and_seed_alone(checked: RunFolder) -> None:
    Run(checked).select(harmful=6, benign=2)
    before = checked.read("selected")
    prompts = from_table(Prompt, checked.read("prompts"))
    checked.write("prompts", to_table(Prompt, prompts[::-1]))
    select(checked)
    assert checked.read("selected").equals(before)
    counts = Counter(before["config"].to_pylist())
    assert counts["improved"] == 6


def test_a_selection_from_other_accepted_rows_is_not_released(checked: RunFolder) -> None:
    select(checked)
    checked.write("accepted", checked.read("accepted").slice(1))
    with pytest.raises(UserError, match="Draw it again: saferthoughts select small"):
        build_release(checked)


def test_an_unknown_variant_is_refused(checked: RunFolder) -> None:
    with pytest.raises(UserError, match="Did you mean 'improved'"):
        Run(checked).select(variants=("improoved",))
