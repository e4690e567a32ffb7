"""Near-duplicates: found where they are, each with a survivor that it resembles."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.datasets.imported import import_dataset
from curation.overlap.duplicates import find_duplicates, near_duplicates
from curation.quality.checks import check
from curation.sql.views import open_views
from pipelines.judges.stage import judge
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from pipelines.sources import Source

RNG = random.Random(0)
WORDS = ["".join(RNG.choices("abcdefghijklmnop", k=RNG.randint(3, 8))) for _ in range(3000)]


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=120))


def test_a_copy_with_one_word_changed_is_found_and_nothing_else() -> None:
    rng = random.Random(1)
    originals = [text(rng) for _ in range(300)]
    copies = []
    for original in originals[:40]:
        words = original.split()
        words[rng.randrange(len(words))] = "changed"
        copies.append(" ".join(words))
    found = list(near_duplicates([pa.array(originals + copies)], 5, 0.8))
    assert sorted((item.index, item.survivor) for item in found) == [(300 + at, at) for at in range(40)]
    assert all(0.8 <= item.similarity <= 1 for item in found)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["", "one two", "one two three four", "a b c d e f g"]), max_size=8))
def test_equal_texts_join_the_first_of_them(texts: list[str]) -> None:
    found = {item.index: item.survivor for item in near_duplicates([pa.array(texts, pa.string())], 2, 0.9)}
    for index, own in enumerate(texts):
        first = texts.index(own)
        assert found.get(index) == (first if own and index != first else None)


def plant(run: RunFolder, answers: list[str]) -> list[str]:
    """Give rows of improved one reasoning and these answers; their ids."""
    kinds = {prompt.prompt_id: prompt.kind for prompt in from_table(Prompt, run.read("prompts"))}
    responses = from_table(Response, run.read("responses"))
    places = [at for at, row in enumerate(responses) if row.variant == "improved" and kinds[row.prompt_id] == "harmful"]
    reasoning = " ".join(WORDS[:60]) + " This would hurt people, so I refuse."
    for at, answer in zip(places, answers, strict=False):
        responses[at] = replace(responses[at], reasoning=reasoning, answer=answer)
    run.write("responses", to_table(Response, responses))
    judge(run)
    return [responses[at].response_id for at in places[: len(answers)]]


def test_survivors_are_without_a_fault_where_one_is(judged: RunFolder) -> None:
    refusal = "Sorry, I can't help with that."
    ids = plant(judged, ["Of course: [detail withheld].", refusal, refusal])
    find_duplicates(judged)
    rows = [row for row in judged.read("duplicates").to_pylist() if row["item_id"] in ids]
    assert sorted(row["item_id"] for row in rows) == sorted(ids)
    assert [row["item_id"] for row in rows if row["survivor"]] == [min(ids[1:])]
    assert {row["cluster"] for row in rows} == {min(ids[1:])}


def test_they_are_rejected_only_where_the_run_says_so(judged: RunFolder) -> None:
    plant(judged, [f"Sorry, I can't help with that, {word}." for word in WORDS[:4]])
    counts = {item.of: item for item in find_duplicates(judged)}
    assert set(counts) == {"prompt", "direct", "realsafe", "improved", "short", "template", "nocot"}
    assert counts["nocot"].items == 0
    assert counts["improved"].redundant == 3
    check(judged)
    assert "near_duplicate" not in set(judged.read("rejected")["check_name"].to_pylist())
    config = load_config(judged)
    strict = config.checks.model_copy(update={"near_duplicates": True})
    save_config(judged, config.model_copy(update={"checks": strict}))
    check(judged)
    assert judged.read("rejected")["check_name"].to_pylist().count("near_duplicate") == 3


def test_the_same_table_comes_out_whatever_the_order_of_rows(judged: RunFolder) -> None:
    find_duplicates(judged)
    before = judged.read("duplicates")
    judged.write("responses", judged.read("responses").sort_by([("response_id", "descending")]))
    find_duplicates(judged)
    assert judged.read("duplicates").equals(before)
    with open_views(judged) as db:
        assert db.sql("SELECT count(*) FROM duplicates WHERE survivor AND item_id <> cluster").fetchall() == [(0,)]


def test_requests_behind_one_template_are_not_taken_for_repeats(tmp_path: Path) -> None:
    rng = random.Random(7)
    before, between, after = (text(rng) for _ in range(3))
    requests = [" ".join(rng.sample(WORDS, 9)) for _ in range(40)]
    prompts = [f"{before} {request} {between} {request} {after}" for request in requests]
    # The same request twice, with one more word.
    prompts.append(f"{before} {requests[0]} please {between} {requests[0]} please {after}")
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps({"prompt": one, "response": "Sorry, no."}) + "\n" for one in prompts))
    run = import_dataset(tmp_path / "runs", "foreign", Source(hub=str(file)), {}, "harmful")
    of_prompts = find_duplicates(run)[0]
    assert (of_prompts.items, of_prompts.clusters, of_prompts.redundant) == (41, 1, 1)
