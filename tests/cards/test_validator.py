"""A card that the Hub would refuse or misread is refused here, with what is wrong."""

import json
from pathlib import Path

import pytest
import yaml

from cards.card import cell, dataset_card
from cards.release import build_release
from cards.validator import faults_of, front_matter_of
from curation.checks import check
from pipelines.config import Release, load_config, save_config, validated
from pipelines.errors import UserError
from pipelines.runs import RunFolder

LINEAGE = Path(__file__).parent / "lineage.json"


@pytest.fixture
def card() -> str:
    return dataset_card(json.loads(LINEAGE.read_text()))


def test_our_own_card_has_no_fault(card: str) -> None:
    assert faults_of(card) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("license: apache-2.0", "license: apache2", "license: the Hub knows no 'apache2'"),
        ("license: apache-2.0", "license: other", "'other' needs license_name"),
        ("- n<1K", "- 1000", "size_categories: '1000' is none of n<1K"),
        ("- text-generation", "- text generation", "task_categories: 'text generation' is none of"),
        ("- en\n", "- English\n", "language: 'English' is no ISO 639 code"),
        ("license: apache-2.0", "license: apache-2.0\nlicense: mit", "the key 'license' stands twice"),
        ("license: apache-2.0", "licence: mit\nlicense: apache-2.0", "unknown key 'licence'"),
        ("license: apache-2.0", "license: [", "the front matter is not YAML"),
        ("path: data/improved/", "paths: data/improved/", "configs:"),
        ("config_name: improved", "config_name: short", "configs: 'short' stands twice"),
        ("- safety\n", "- 1\n", "tags: 1 is not a text"),
        ("# Safe", "# {{ title }} Safe", "'{{' is left over from the template"),
        ("---\npretty", "pretty", "does not begin with front matter"),
    ],
)
def test_each_fault_is_named(card: str, old: str, new: str, told: str) -> None:
    assert old in card
    assert told in "; ".join(faults_of(card.replace(old, new, 1)))


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


def test_a_licence_that_is_not_ours_is_in_card_and_folder(judged: RunFolder) -> None:
    config = load_config(judged)
    release = config.release.model_copy(update={"license": "other"})
    save_config(judged, config.model_copy(update={"release": release}))
    check(judged)
    folder = build_release(judged).folder
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (front["license"], front["license_link"]) == ("other", "LICENSE")
