"""Starting a run again: what the prompts were is never replaced without a word."""

from pathlib import Path

from pipelines.options import Options
from service.stages import start_run


def test_prompts_that_are_drawn_anew_are_told(tmp_path: Path) -> None:
    first = start_run(tmp_path, "mine", Options(harmful=4, benign=2)).said
    assert "drawn anew" not in first

    again = start_run(tmp_path, "mine", Options(harmful=4, benign=2, sets=("teachers.rehearsal.in_flight=8",))).said
    assert "drawn anew" not in again

    other = start_run(tmp_path, "mine", Options(harmful=5, benign=2)).said
    assert "5 harmful and 2 benign prompts, drawn anew in place of the 6 that were there" in other
