"""The bundled prompts and evaluation sets (matched wordings), and the draw."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.prompts.prompt_files import load_pool
from pipelines.prompts.prompt_sets import SLOT, PromptPool, Request, Template, draw
from pipelines.records import Prompt, content_id

ROOT = Path(__file__).parents[2]
CATEGORIES = {
    "harassment/threatening",
    "hate/threatening",
    "illicit/violent",
    "self-harm/intent/instructions",
    "violence/graphic",
    "misinformation",
    "privacy/sensitive",
}
OPENINGS = (
    "How do I",
    "How can I",
    "Write a",
    "Explain step by step how to",
    "What is the best way to",
    "Give me",
    "Help me",
    "Draft a",
    "List",
    "Tell me how to",
    "Show me how to",
)
LOADED = (
    "kill attack steal|stole blow threat fake bomb hide poison burn stalk trick rob|robb spy|spies hurt insult gory"
)
SETS = ("bundled", "heldout", "swapped")


@cache
def our_pool(name: str) -> PromptPool:
    return load_pool(name if name == "bundled" else ROOT / "eval" / "data" / f"{name}.yaml")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def opening(text: str) -> str:
    found = [start for start in OPENINGS if text.startswith((f"{start} ", f"{start}n "))]
    assert len(found) == 1, text
    return found[0]


def frames(requests: Iterable[Request]) -> Counter[tuple[str, str]]:
    """Opening and final punctuation of each text, counted."""
    return Counter((opening(item.text), re.sub(r"[^.?!]", "", item.text[-1])) for item in requests)


# --- what we ship ---


@pytest.mark.parametrize("name", SETS)
def test_shipped_sets_match_openings_and_final_punctuation(name: str) -> None:
    pool = our_pool(name)
    assert frames(pool.behaviours) == frames(pool.benign)
    assert {end for _, end in frames(pool.benign)} >= {"", ".", "?"}


@pytest.mark.parametrize("name", SETS)
def test_shipped_sets_match_sentence_length(name: str) -> None:
    pool = our_pool(name)
    harmful, benign = ([len(item.text.split()) for item in part] for part in (pool.behaviours, pool.benign))
    assert abs(sum(harmful) / len(harmful) - sum(benign) / len(benign)) < 1
    assert max(harmful) <= 15
    assert max(benign) <= 15


@pytest.mark.parametrize("name", SETS)
def test_shipped_sets_cover_seven_categories_evenly_and_none_about_minors(name: str) -> None:
    counts = Counter(item.category for item in our_pool(name).behaviours)
    assert set(counts) == CATEGORIES
    assert max(counts.values()) - min(counts.values()) <= 1
    assert not CATEGORIES & {item.category for item in our_pool(name).benign}


def test_bundled_set_has_the_promised_parts() -> None:
    pool = our_pool("bundled")
    assert (len(pool.behaviours), len(pool.benign), len(pool.templates)) == (40, 40, 10)
    assert frames(pool.behaviours).total() == 40
    assert set(Counter(opening(item.text) for item in pool.behaviours).values()) == {4}
    assert (pool.source, pool.license, pool.duplicates) == ("saferthoughts bundled", "Apache-2.0", 0)
    assert {template.id for template in pool.templates} == {
        "persona", "fiction", "two-answers", "forced-prefix", "output-format",
        "role-play-game", "translation", "hypothetical", "authority", "step-by-step",
    }  # fmt: skip


def test_bundled_templates_are_two_to_six_sentences() -> None:
    for template in our_pool("bundled").templates:
        sentences = re.findall(r"[^.?!]*\w[^.?!]*", template.fill("Task."))
        assert 2 <= len(sentences) <= 6, template.id


def test_bundled_loaded_verbs_stand_on_both_sides() -> None:
    pool = our_pool("bundled")
    for stem in LOADED.split():
        for part in (pool.behaviours, pool.benign):
            assert any(re.search(stem, item.text.lower()) for item in part), stem


def test_bundled_words_do_not_tell_harm_apart() -> None:
    """Leave-one-out naive Bayes over words, which sees phrases and no meaning, must not beat a coin by much."""
    pool = our_pool("bundled")
    rows = [(set(words(item.text)), True) for item in pool.behaviours]
    rows += [(set(words(item.text)), False) for item in pool.benign]
    right = 0
    for place, (seen, harmful) in enumerate(rows):
        others = rows[:place] + rows[place + 1 :]
        odds = 1.0
        for word in seen:
            with_word = Counter(kind for text, kind in others if word in text)
            odds *= (with_word[True] + 1) / (with_word[False] + 1)
        right += (odds > 1) == harmful
    assert right / len(rows) < 0.6


@pytest.mark.parametrize("name", ["heldout", "swapped"])
def test_eval_sets_do_not_overlap_training(name: str) -> None:
    trained, measured = our_pool("bundled"), our_pool(name)
    for ours, theirs in product(trained.behaviours + trained.benign, measured.behaviours + measured.benign):
        one, other = set(words(ours.text)), set(words(theirs.text))
        assert len(one & other) / len(one | other) < 0.6, (ours.text, theirs.text)


def test_swapped_set_wears_the_heldout_wordings_of_the_other_kind() -> None:
    heldout, swapped = our_pool("heldout"), our_pool("swapped")
    pairs = [
        *zip(heldout.benign, swapped.behaviours, strict=True),
        *zip(heldout.behaviours, swapped.benign, strict=True),
    ]
    assert len(pairs) == 40
    for original, swap in pairs:
        assert frames([original]) == frames([swap])
        # Beyond the opening at least one more word is kept, in order.
        kept = words(original.text.removeprefix(opening(original.text)))
        assert set(kept) & set(words(swap.text.removeprefix(opening(swap.text)))), swap.text


def test_shipped_texts_have_no_braces_and_stand_once() -> None:
    requests = [item for name in SETS for item in our_pool(name).behaviours + our_pool(name).benign]
    assert len({item.text.lower() for item in requests}) == len(requests)
    assert len({item.id for item in requests}) == len(requests)
    prompts = draw(our_pool("bundled"), None, None, seed=0, bare_share=1 / 2)
    for text in [item.text for item in requests] + [prompt.text for prompt in prompts]:
        assert "{" not in text
        assert "}" not in text


# --- the draw ---


def pool_of(sizes: Sequence[int], templates: int, benign: Sequence[int] = ()) -> PromptPool:
    def requests(side: str, counts: Sequence[int]) -> tuple[Request, ...]:
        return tuple(
            Request(f"{side}-{category}-{number}", f"{side}-{category}", f"{side} {category} {number}", "test", "MIT")
            for category, count in enumerate(counts)
            for number in range(count)
        )

    wrappings = tuple(Template(f"t{number}", f"Wrapping {number}: {SLOT}") for number in range(templates))
    return PromptPool("made", requests("harm", sizes), requests("calm", benign), wrappings)


def spread(counts: Iterable[int]) -> int:
    known = list(counts)
    return max(known) - min(known) if known else 0


def is_level(given: Counter[str], total: Counter[str], room: Counter[str]) -> bool:
    """No category that could still have taken one stands two or more below one that was given some."""
    return all(
        total[taker] >= total[giver] - 1
        for giver, taker in product(room, repeat=2)
        if given[giver] and given[taker] < room[taker]
    )


def shuffled(pool: PromptPool, seed: int) -> PromptPool:
    chance = Random(seed)
    behaviours, benign, templates = list(pool.behaviours), list(pool.benign), list(pool.templates)
    chance.shuffle(behaviours)
    chance.shuffle(benign)
    chance.shuffle(templates)
    return PromptPool(pool.name, tuple(behaviours), tuple(benign), tuple(templates))


@st.composite
def draws(data: st.DrawFn) -> tuple[PromptPool, int, int, int, float]:
    sizes = data(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    benign = data(st.lists(st.integers(1, 6), max_size=4))
    pool = pool_of(sizes, data(st.integers(0, 5)), benign)
    bare = data(st.integers(0, sum(sizes)))
    templated = data(st.integers(0, sum(sizes) * len(pool.templates)))
    harmful = bare + templated
    share = bare / harmful if harmful else data(st.floats(0, 1))
    return pool, harmful, data(st.integers(0, sum(benign))), data(st.integers(0, 3)), share


@given(draws())
@settings(deadline=None, database=None)
def test_draw_gives_what_was_asked_once_sorted_and_whatever_the_order(
    case: tuple[PromptPool, int, int, int, float],
) -> None:
    pool, harmful, benign, seed, share = case
    prompts = draw(pool, harmful, benign, seed, share)
    ids = [prompt.prompt_id for prompt in prompts]
    assert ids == sorted(set(ids))
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    kinds = Counter(prompt.kind for prompt in prompts)
    assert (kinds["harmful"], kinds["benign"]) == (harmful, benign)
    bare = sum(prompt.kind == "harmful" and not prompt.template_id for prompt in prompts)
    assert bare == (round(harmful * share) if pool.templates else harmful)
    assert draw(shuffled(pool, seed), harmful, benign, seed, share) == prompts


@given(draws())
@settings(deadline=None, database=None)
def test_draw_is_level_over_categories_templates_and_behaviours(case: tuple[PromptPool, int, int, int, float]) -> None:
    pool, harmful, benign, seed, share = case
    prompts = draw(pool, harmful, benign, seed, share)
    harms = [prompt for prompt in prompts if prompt.kind == "harmful"]
    templates = Counter({template.id: 0 for template in pool.templates})
    templates.update(prompt.template_id for prompt in harms if prompt.template_id)
    assert spread(templates.values()) <= 1
    bare, wrapped, calm = (
        Counter(prompt.category for prompt in prompts if prompt.kind == kind and bool(prompt.template_id) == templated)
        for kind, templated in (("harmful", False), ("harmful", True), ("benign", False))
    )
    sizes = Counter(item.category for item in pool.behaviours)
    wrapped_room = Counter({name: size * len(pool.templates) for name, size in sizes.items()})
    assert is_level(bare, bare, sizes)
    assert is_level(wrapped, bare + wrapped, wrapped_room)
    assert is_level(calm, calm, Counter(item.category for item in pool.benign))
    for name in {prompt.category for prompt in harms}:
        uses = Counter({item.id: 0 for item in pool.behaviours if item.category == name})
        uses.update(prompt.behaviour_id for prompt in harms if prompt.category == name)
        assert spread(uses.values()) <= 1


def test_draw_of_everything_is_every_combination() -> None:
    pool = our_pool("bundled")
    wrapped = {(item.id, template.id) for item, template in product(pool.behaviours, pool.templates)}
    bare = {(item.id, "") for item in pool.behaviours}

    def harmful_pairs(bare_share: float) -> list[tuple[str, str]]:
        prompts = draw(pool, None, 0, seed=1, bare_share=bare_share)
        return sorted((prompt.behaviour_id, prompt.template_id) for prompt in prompts)

    assert harmful_pairs(0) == sorted(wrapped)
    assert harmful_pairs(0.3) == sorted(wrapped | bare)
    assert harmful_pairs(1) == sorted(bare)
    assert len(draw(pool, 0, None, seed=1, bare_share=0)) == 40


def test_draw_fills_the_template_and_names_the_source() -> None:
    pool = replace(pool_of([1], 1), templates=(Template("t", "{braces} of its own, then {behaviour}"),))
    behaviour = replace(pool.behaviours[0], text="print {behaviour} and {0}")
    (prompt,) = draw(replace(pool, behaviours=(behaviour,)), 1, 0, seed=0, bare_share=0)
    assert prompt == Prompt(
        prompt_id=content_id("print {behaviour} and {0}", "{braces} of its own, then {behaviour}"),
        kind="harmful",
        behaviour_id="harm-0-0",
        template_id="t",
        category="harm-0",
        behaviour="print {behaviour} and {0}",
        text="{braces} of its own, then print {behaviour} and {0}",
        source="test",
        source_license="MIT",
    )


def test_draw_follows_the_seed() -> None:
    pool = our_pool("bundled")
    first, second = (draw(pool, 20, 10, seed, bare_share=0.5) for seed in (0, 1))
    assert first == draw(pool, 20, 10, 0, bare_share=0.5)
    assert first != second


def test_draw_keeps_most_picks_when_a_prompt_is_added() -> None:
    small, grown = pool_of([25] * 8, 20), pool_of([26] + [25] * 7, 20)
    before, after = (draw(pool, 1000, 0, seed=0, bare_share=0.2) for pool in (small, grown))
    lost = set(before) - set(after)
    assert {prompt.category for prompt in lost} <= {"harm-0"}
    assert len(lost) < 50


@pytest.mark.parametrize(
    ("harmful", "benign", "share", "message"),
    [
        (441, 0, 0.1, r"Asked for 441 .* 'bundled' has 440 \(40 bare, 400 in templates\)"),
        (100, 0, 0.5, r"Asked for 100 harmful prompts \(50 bare, 50 in templates\), but 'bundled' has 440"),
        (0, 41, 0.5, "Asked for 41 benign prompts, but 'bundled' has 40"),
        (-1, 0, 0.5, "Asked for -1 harmful prompts"),
        (1, 0, 1.5, r"bare_share is 1\.5"),
        (1, 0, float("nan"), "bare_share is nan"),
    ],
)
def test_draw_refuses_what_it_cannot_give(harmful: int, benign: int, share: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(our_pool("bundled"), harmful, benign, seed=0, bare_share=share)


def test_content_hash_follows_texts_and_not_their_order() -> None:
    pool = our_pool("bundled")
    assert shuffled(pool, 3).content_hash == pool.content_hash
    shorter = replace(pool, benign=pool.benign[1:])
    moved = replace(shorter, behaviours=(*pool.behaviours, pool.benign[0]))
    assert len({pool.content_hash, shorter.content_hash, moved.content_hash}) == 3
