"""The benchmark of evaluation: every request is made and counted, its bound is right. Nothing here is timed."""

import json

import pytest

from benchmarks import evaluation
from benchmarks.attack_server import ATTACKER, JUDGE, REPLIES
from benchmarks.evaluation import FULL, QUICK, attack, endpoint
from eval.scorers.attacks import read_attack, read_rating


def test_an_attack_makes_every_request_within_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_DELAY_S", 0.01)
    found = attack(goals=1, in_flight=1)
    # 25 attempts with three requests each, and the answer to the best prompt.
    assert found["pair_requests"] == 25 * 3 + 1
    # One at each of three models.
    assert 1 <= found["pair_peak_in_flight"] <= 3
    # 26 of them go to the target, one after the other.
    assert found["pair_critical_path_s"] == pytest.approx(0.26)
    assert found["pair_wall_vs_critical_path"] >= 1


def test_the_quick_suite_is_asked_whole_against_its_critical_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_DELAY_S", 0.01)
    found = endpoint((2, 1, 1, 3), limit=1)
    # A pair of questions twice over, held out and swapped, asked twice; the others 1, 1 and 3 times.
    assert found["endpoint_answers"] == 4 * 2 + 1 + 1 + 3
    assert found["endpoint_critical_path_s"] == pytest.approx(0.01)
    assert found["endpoint_vs_critical_path"] >= 1


def test_the_server_s_replies_are_read_and_never_end_an_attack() -> None:
    attack_read = read_attack(REPLIES[ATTACKER])
    assert attack_read is not None
    assert attack_read.prompt == json.loads(REPLIES[ATTACKER])["prompt"]
    assert read_rating(REPLIES[JUDGE]) == 1


def test_quick_is_smaller_in_everything_that_takes_time() -> None:
    assert all(small < large for small, large in zip(QUICK, FULL, strict=True))
