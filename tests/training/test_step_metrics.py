"""metrics.jsonl: a line a step, the steps after a checkpoint taken back, and whatever a file holds read as figures."""

import json
import math
from pathlib import Path

from training.trainer.step_metrics import METRICS, StepMetrics, read_metrics


def test_a_training_that_goes_on_takes_back_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    metrics = StepMetrics(tmp_path / METRICS)
    metrics.begin(0)
    for step in (1, 2, 3):
        metrics.add(step, 4, {"loss": 1.0 / step, "learning_rate": 1e-5, "epoch": 1})
    metrics.begin(2)
    metrics.add(3, 4, {"loss": math.nan})
    found = read_metrics(tmp_path / METRICS)
    assert [(one["step"], one["loss"]) for one in found] == [(1, 1.0), (2, 0.5), (3, None)]
    assert "epoch" not in found[0]
    metrics.begin(0)
    assert read_metrics(tmp_path / METRICS) == []


def test_odd_lines_are_left_out_and_links_not_followed(tmp_path: Path) -> None:
    good = {"step": 1, "of": 2, "at": 1.0, "loss": "<script>", "extra": "x"}
    odd = ['{"step": 1e999, "of": 1, "at": 1}', "[" * 100_000, '{"step": 2', "null", "\x00", '{"of": 2}']
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([*odd, json.dumps(good)]), encoding="utf-8")
    assert read_metrics(file) == [{"step": 1, "of": 2, "at": 1.0, "loss": None}]
    link = tmp_path / METRICS
    link.symlink_to(file)
    assert read_metrics(link) == read_metrics(tmp_path / "nowhere") == []
