"""The question files: the bundled ones hold what the table says, broken ones are refused by name."""

from collections import Counter
from pathlib import Path

import pytest

from eval.tasks.refusal import SETS, load_questions
from pipelines.errors import UserError

GOOD = '- {id: a, kind: harmful, category: x, text: "One."}\n- {id: b, kind: benign, category: x, text: "Two."}\n'


@pytest.mark.parametrize("name", SETS)
def test_bundled_set_has_twenty_of_each_kind(name: str) -> None:
    assert Counter(question.kind for question in load_questions(SETS[name])) == {"harmful": 20, "benign": 20}


def test_limit_counts_each_kind() -> None:
    questions = load_questions(SETS["heldout"], limit=3)
    assert Counter(question.kind for question in questions) == {"harmful": 3, "benign": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a list of questions"),
        ("a: b\n", "is not a list of questions"),
        ("- [\n", "is not YAML"),
        ("- just words\n", "Question 1 of .* has 'just words'"),
        (GOOD.replace("kind: benign, ", ""), "Question 2 of .* has id, category, text"),
        (GOOD.replace("benign", "neutral"), "Question 2 of .* has the kind 'neutral'. Choose from: harmful, benign"),
        (GOOD.replace("Two.", " "), "Question 2 of .* has the text ' '"),
        (GOOD.replace("id: b", "id: 7"), "Question 2 of .* has the id 7"),
        (GOOD.replace("id: b", "id: a"), "has the id 'a' 2 times"),
        (GOOD.replace("Two.", "One."), "has the text 'One.' 2 times"),
    ],
)
def test_broken_set_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "set.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_questions(path)


def test_missing_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no evaluation set"):
        load_questions(tmp_path / "none.yaml")
