"""A card that the Hub would refuse or misread is refused here, with what is wrong."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cards.card.dataset_card import dataset_card
from cards.card.markdown import cell
from cards.card.validator import faults_of, front_matter_of
from cards.release.build import build_release
from cards.verify import verify
from curation.quality.checks import check
from pipelines.errors import UserError, visible
from pipelines.runs import RunFolder
from pipelines.settings.config import Release, load_config, save_config
from pipelines.settings.parts import validated
from tests.cards.shapes import shape

LINEAGE = Path(__file__).parent / "lineage.json"


@pytest.fixture
def card() -> str:
    return dataset_card(json.loads(LINEAGE.read_text()))


def test_our_own_card_has_no_fault(card: str) -> None:
    assert faults_of(card) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("license: apache-2.0", "license: apache2", "license: the Hub knows no 'apache2'"),
        ("license: apache-2.0", "license: other", "'other' needs license_name"),
        ("[n<1K]", "[1000]", "size_categories: '1000' is none of n<1K"),
        ("[text-generation]", "[text generation]", "task_categories: 'text generation' is none of"),
        ("[en]", "[English]", "language: 'English' is no ISO 639 code"),
        ("license: apache-2.0", "license: apache-2.0\nlicense: mit", "duplicate key 'license'"),
        ("license: apache-2.0", "licence: mit\nlicense: apache-2.0", "unknown key 'licence'"),
        ("license: apache-2.0", "license: [", "the front matter is not YAML"),
        ("path: data/improved/", "paths: data/improved/", "configs:"),
        ("config_name: improved", "config_name: short", "configs: duplicate name 'short'"),
        ("[saferthoughts, ", "[1, ", "tags: 1 is not a text"),
        ("# Safe", "# {{ title }} Safe", "'{{' is left over from the template"),
        ("---\npretty", "pretty", "does not begin with front matter"),
    ],
)
def test_each_fault_is_named(card: str, old: str, new: str, expected: str) -> None:
    assert old in card
    assert expected in "; ".join(faults_of(card.replace(old, new, 1)))


def test_a_config_whose_files_are_missing_is_named(card: str, tmp_path: Path) -> None:
    assert "configs: improved: no file is data/improved/train-*.parquet" in faults_of(card, tmp_path)


def test_gating_stands_in_the_front_matter_as_it_was_asked_for() -> None:
    text = 'You agree: "no harm" --- and\nnothing else: {{ ever }}'
    fields = {"Name": "text", "I agree": "checkbox"}
    lineage = json.loads(LINEAGE.read_text()) | {"gating": {"text": text, "fields": fields}}
    front = front_matter_of(dataset_card(lineage))
    assert (front["extra_gated_prompt"], front["extra_gated_fields"]) == (text, fields)


def test_a_title_is_text_wherever_it_stands() -> None:
    title = 'Rows: "safe" # <script>alert(1)</script> | [x](y)'
    card = dataset_card(json.loads(LINEAGE.read_text()) | {"title": title})
    assert front_matter_of(card)["pretty_name"] == title
    assert "<script>" not in card.partition("\n---\n")[2]
    assert cell("a|b\n<i>") == "a\\|b &lt;i&gt;"


def test_an_unknown_licence_is_refused_when_it_is_written() -> None:
    with pytest.raises(UserError, match=r"no such licence, but apache-2\.0"):
        validated(Release, {"license": "apache-2"}, "run.yaml")


def test_other_needs_a_text_and_licence_holds_it(judged: RunFolder) -> None:
    with pytest.raises(UserError, match=r"license_text: .*license 'other' needs the text"):
        validated(Release, {"license": "other"}, "release")
    config = load_config(judged)
    release = config.release.model_copy(update={"license": "other", "license_text": "Ours. Ask first."})
    save_config(judged, config.model_copy(update={"release": release}))
    check(judged)
    folder = build_release(judged).folder
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (front["license"], front["license_link"]) == ("other", "LICENSE")
    assert (folder / "LICENSE").read_text() == "Ours. Ask first.\n"


def test_other_languages_are_those_of_the_configuration() -> None:
    card = dataset_card(json.loads(LINEAGE.read_text()) | {"language": ["de", "fr"]})
    assert front_matter_of(card)["language"] == ["de", "fr"]
    assert "English only" not in card
    assert "de, fr" in card


# What a prompt file, a judge's name or a title may hold that markdown, HTML, YAML or a template would act on.
TRICKS = [
    "\n---\nlicense: mit\n---\n",
    "---",
    "{{ 7 * 7 }} {% raw %} }}",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[x](javascript:alert(1)) ![y](https://example.org/z.png)",
    "| a | b |\n|---|---|\n# heading\n- item\n> quote\n```\ncode",
    "https://example.org/a www.example.org mailto:a@example.org <https://example.org>",
    "&lt;b&gt; $x$ ~~gone~~ **bold** _it_ @all\u2028\u0085\\",
    "key: [unclosed, 'quote",
    "\x1b(https://example.org) \x0b: \u200b[x]\u202e(y)",
]


def hostile(words: str, imported: bool) -> dict[str, Any]:
    """The golden lineage, as of a run of ours or of imported rows, with the words wherever somebody else's come in."""
    lineage = json.loads(LINEAGE.read_text()) | {"title": words, "gating": {"text": words, "fields": {words: "text"}}}
    lineage["sources"][0] |= {"source": words, "license": words}
    lineage["prompts"] |= {"name": words, "license": words}
    lineage["teachers"]["rehearsal"] |= {"model": words, "place": words}
    lineage["variants"]["improved"]["description"] = words
    lineage["judging"]["judges"] = {words: next(iter(lineage["judging"]["judges"].values())) | {"model": words}}
    lineage["overlap"] = {words: {"items": 2, "sha256": "0", "overlapping": ["a"]}}
    lineage["reasons"][0] |= {"check": words, "reason": words}
    if imported:
        line = {"config": "improved", "models": 1, "rows": 1}
        lineage["imported"] = {
            **dict.fromkeys(("name", "config", "revision", "digest"), words),
            **dict.fromkeys(("read", "refused"), 1),
            "failures": {"reasons": [{"text": words, "rows": 1}]},
            "unread": [words],
            "answers": [line | {"model": words, "mended": mended} for mended in (False, True)],
        }
    return dict(lineage)


@cache
def tame(imported: bool) -> list[tuple[str, str]]:
    return shape(dataset_card(hostile("words", imported)))


def each_trick(test: Any) -> Any:
    for words in TRICKS:
        test = example(words, True)(example(words, False)(test))
    return test


@settings(max_examples=8, deadline=None)
@each_trick
@given(st.text(min_size=1).filter(lambda text: bool(text.strip())), st.booleans())
def test_hostile_words_stay_words(words: str, imported: bool) -> None:
    card = dataset_card(hostile(words, imported))
    assert faults_of(card) == []
    front = front_matter_of(card)
    title = visible(" ".join(words.split()))
    assert (front["pretty_name"], front["extra_gated_prompt"]) == (title, visible("\n".join(words.splitlines())))
    assert front["extra_gated_fields"] == {title: "text"}
    # The Hub's own client reads the same.
    theirs: Any = DatasetCard(card, ignore_metadata_errors=False).data
    assert (theirs.pretty_name, theirs.license) == (title, "apache-2.0")
    assert shape(card) == tame(imported)
    assert not re.search(r"(?i)\b(https?://|www\.)example\.org", card.partition("\n---\n")[2])


def test_hostile_words_stay_words_in_croissant(judged: RunFolder) -> None:
    config = load_config(judged)
    release = config.release.model_copy(update={"title": TRICKS[0] + TRICKS[3]})
    save_config(judged, config.model_copy(update={"release": release}))
    prompts = judged.read("prompts")
    place = prompts.schema.get_field_index("source")
    sources = pa.array(TRICKS[:2] * (len(prompts) // 2) + TRICKS[: len(prompts) % 2])
    judged.write("prompts", prompts.set_column(place, prompts.schema.field(place), [sources]))
    check(judged)
    folder = build_release(judged).folder
    assert json.loads((folder / "croissant.json").read_text())["name"] == release.title
    assert verify(folder).faults == ()
