"""A power cut under a ledger: what was passed on is still there, and the file is whole."""

import shutil
from pathlib import Path

import pytest

from benchmarks.power_cuts import cut_often, recorded

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def test_no_answer_that_was_passed_on_is_lost_to_a_power_cut(tmp_path: Path) -> None:
    found = cut_often(recorded(tmp_path / "run", 60), 40, 7, tmp_path)
    assert found.broken == []
    assert found.lost == 0
    # Half of the points, at least, are after the first answers.
    assert found.acknowledged > 100


def test_the_same_cuts_lose_answers_that_were_not_waited_for(tmp_path: Path) -> None:
    assert cut_often(recorded(tmp_path / "run", 60, "NORMAL"), 40, 7, tmp_path).lost > 0
