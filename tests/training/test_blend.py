"""Named mixtures: the release's rows, and verified rows of other datasets."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from training.mixtures.mixture_rows import MIXTURES, blended, load_blend, same_answer
from training.students.quiet import quiet


def maths(path: Path, count: int) -> Path:
    """Questions of which every third is answered wrongly."""
    rows = [
        {
            "problem": f"What is {n} + 1?",
            "solution": f"<think>\nI add one to {n}.\n</think>\n\nIt is \\boxed{{{n + 1 + (n % 3 == 0)}}}.",
            "answer": str(n + 1),
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(path: Path, source: Path, rows: int) -> str:
    path.write_text(
        f"release: {{improved: 4}}\nfurther:\n  - {{name: math, hub: '{source}', prompt: problem, response: solution, "
        f"answer: answer, rows: {rows}}}\n"
    )
    return str(path)


def test_rows_of_the_release_and_verified_rows_come_together(release: Path, tmp_path: Path) -> None:
    wanted = recipe(tmp_path / "own.yaml", maths(tmp_path / "m.jsonl", 30), 12)
    with quiet():
        mixture = blended(wanted, release, 1, tmp_path / "cache")
        again = blended(wanted, release, 1, tmp_path / "cache")
        other = blended(wanted, release, 2, tmp_path / "cache")
    assert mixture.counts() == {"improved": {"harmful": 4}, "math": {"math": 12}}
    own = [row for row in mixture.rows if row.config == "math"]
    assert all(int(row.messages[0]["content"].split()[2]) % 3 for row in own)
    assert all(row.messages[1]["content"].startswith("<think>\nI add one to ") for row in own)
    assert mixture == again
    assert mixture.content != other.content


def test_conversations_of_a_table_are_read_as_a_datasets_are(release: Path, tmp_path: Path) -> None:
    asked = {"from": "human", "value": "What is 1 + 1?"}
    answered = {"from": "gpt", "value": "<think>\nOne more.\n</think>\n\nTwo."}
    talks = [[{"from": "system", "value": "Be brief."}, asked, answered], [asked, answered, asked, answered], [asked]]
    pq.write_table(pa.Table.from_pylist([{"conversations": talk} for talk in talks]), tmp_path / "talks.parquet")
    further = f"{{name: talk, hub: '{tmp_path / 'talks.parquet'}', messages: conversations, rows: 1}}"
    wanted = tmp_path / "own.yaml"
    wanted.write_text(f"release: {{improved: 2}}\nfurther: [{further}]\n")
    with quiet():
        mixture = blended(str(wanted), release, 1, tmp_path / "cache")
    [row] = [row for row in mixture.rows if row.config == "talk"]
    assert row.messages[0]["content"] == "Be brief.\n\nWhat is 1 + 1?"
    wanted.write_text(f"release: {{improved: 2}}\nfurther: [{further.replace('rows: 1', 'rows: 2')}]\n")
    with quiet(), pytest.raises(UserError, match=r"wants 2 rows; .* has 1 \(1 messages (has 2 questions|has no turn)"):
        blended(str(wanted), release, 1, tmp_path / "cache")


def test_too_few_verified_rows_are_told_with_the_reasons(release: Path, tmp_path: Path) -> None:
    wanted = recipe(tmp_path / "own.yaml", maths(tmp_path / "m.jsonl", 9), 7)
    with (
        quiet(),
        pytest.raises(UserError, match=r"wants 7 rows; .* has 6 \(3 with another answer than the reference\)"),
    ):
        blended(wanted, release, 1, tmp_path / "cache")


@pytest.mark.parametrize("path", sorted(MIXTURES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_mixtures_are_sound(path: Path) -> None:
    assert load_blend(path.stem).release["improved"] == 1000


def test_an_unknown_mixture_is_told_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"Unknown mixture 'safety'.*safety1k\+benign100"):
        load_blend("safety")


def test_a_mapping_is_rows_of_the_release(release: Path, tmp_path: Path, write_release: Callable[..., Path]) -> None:
    with quiet():
        assert blended({"improved": 4}, release, 1, tmp_path / "cache").counts() == {"improved": {"harmful": 4}}


@pytest.mark.parametrize(
    ("text", "reference", "same"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", True),
        (r"\boxed{3} and then \boxed{4}", "3", False),
        (r"\boxed{1+x^2}", "x^2+1", True),
        ("it is 4", "4", False),
        (r"\boxed{" + "(" * 200, "4", False),
    ],
)
def test_the_last_boxed_expression_counts(text: str, reference: str, same: bool) -> None:
    assert same_answer(text, reference) is same
