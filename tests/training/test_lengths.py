"""Rows longer than a recipe allows: a stated share is left out and counted, more stop the run, none is cut."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipelines.errors import UserError
from pipelines.thinking import join
from training.mixtures.mixture import Mixture, TrainingRow
from training.proof.supervision import tokens_of
from training.recipes.recipe import Recipe
from training.trainer.lengths import fitting, positions_of


def row(number: int, words: int) -> TrainingRow:
    answer = "word " * words + "."
    messages = ({"role": "user", "content": "Tell."}, {"role": "assistant", "content": join("Hm.", answer)})
    return TrainingRow(f"row-{number}", "improved", "benign", messages)


def recipe(share: float, length: int = 256) -> Recipe:
    return Recipe(mixture={"improved": 10}, max_length=length, overlong_share=share)


ROWS = Mixture(tuple(row(n, 300 if n in (2, 7) else 5) for n in range(10)), files={}, content="all")


def test_what_is_too_long_is_left_out_up_to_the_stated_share(tiny_student: Path) -> None:
    serving = AutoTokenizer.from_pretrained(tiny_student)
    found = fitting(ROWS, tokens_of(ROWS.rows, serving), recipe(0.2), None)
    assert (len(found.mixture.rows), len(found.lengths), found.left_out) == (8, 8, 2)
    assert not {"row-2", "row-7"} & {row.id for row in found.mixture.rows}
    assert max(found.lengths) <= 256
    assert found.mixture.content != ROWS.content


def test_more_than_the_share_stops_with_what_would_help(tiny_student: Path) -> None:
    serving = AutoTokenizer.from_pretrained(tiny_student)
    with pytest.raises(UserError, match=r"2 of 10 rows are longer than max_length 256, the longest has (\d+)") as error:
        fitting(ROWS, tokens_of(ROWS.rows, serving), recipe(0.1), None)
    longest = int(str(error.value).partition("longest has ")[2].split()[0])
    assert f"at least {longest}" in str(error.value)
    assert fitting(ROWS, tokens_of(ROWS.rows, serving), recipe(0, longest), None).left_out == 0
    share = float(str(error.value).partition("overlong_share=")[2])
    assert fitting(ROWS, tokens_of(ROWS.rows, serving), recipe(share), None).left_out == 2


def test_rows_that_fit_are_left_as_they_are(tiny_student: Path) -> None:
    mixture = Mixture(ROWS.rows[:2], files={}, content="two")
    lengths = tokens_of(mixture.rows, AutoTokenizer.from_pretrained(tiny_student))
    assert fitting(mixture, lengths, recipe(0), None).mixture is mixture


def test_nothing_left_is_told(tiny_student: Path) -> None:
    with pytest.raises(UserError, match="10 of 10 rows are longer than max_length 16"):
        fitting(ROWS, tokens_of(ROWS.rows, AutoTokenizer.from_pretrained(tiny_student)), recipe(0.99, 16), None)


def test_rows_beyond_the_students_positions_are_told_or_left_out(tiny_student: Path, tmp_path: Path) -> None:
    serving = AutoTokenizer.from_pretrained(tiny_student)
    with pytest.raises(UserError, match="2 of 10 rows are longer than the 300 positions of the student, the longest"):
        fitting(ROWS, tokens_of(ROWS.rows, serving), recipe(0, 4096), 300)
    assert fitting(ROWS, tokens_of(ROWS.rows, serving), recipe(0.2, 4096), 300).left_out == 2
    assert positions_of(tiny_student) == 512
    values = json.loads((tiny_student / "config.json").read_text(encoding="utf-8"))
    stretched = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 1e4}
    for config, positions in (
        ({**values, "rope_parameters": stretched}, 2048),
        ({"model_type": "gpt2", "n_positions": 64}, 64),
        ({"model_type": "bloom"}, None),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert positions_of(tmp_path) == positions
