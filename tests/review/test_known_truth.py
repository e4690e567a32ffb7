"""The rehearsal teacher's truth end to end: a budget to the real server, votes of what is known, the gate both ways."""

from collections.abc import Callable
from typing import Any

import pytest

from curation.quality.checks import check
from curation.review.agree import agree
from curation.review.evidence import outlook_of
from curation.review.gate import check_gate
from curation.review.sample import population
from pipelines.errors import UserError
from pipelines.rehearsal.truth import truth_of
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from tests.commands import command
from tests.review.conftest import Server
from tests.review.test_agree import gated


def is_unsafe(row: dict[str, Any]) -> bool:
    """What is known of a row of the rehearsal teacher's: a pattern, or an answer that complies."""
    truth = truth_of(row["reasoning"], row["answer"])
    return row["kind"] == "harmful" and truth is not None and (any(truth.labels.values()) or not truth.refused)


def test_sixty_votes_from_push_to_gate_cover_the_truth_and_stop_early_both_ways(
    server: Server, named: Callable[[], RunFolder]
) -> None:
    run = named()
    run = RunFolder(run.path.rename(server.runs / run.name))
    config = load_config(run)
    # One check alone, so that there is something to find among what was accepted.
    lax = config.checks.model_copy(update={"only": ("superseded",)})
    save_config(run, config.model_copy(update={"checks": lax}))
    check(run)
    rows = {row["response_id"]: row for row in population(run)}
    accepted = [row for row in rows.values() if row["accepted"]]
    truth = sum(map(is_unsafe, accepted)) / len(accepted)
    assert 0 < truth < 0.5
    runs = ["--runs", str(server.runs)]
    done = command([*runs, "review", "push", run.name, "--votes", "60", "--overlap", "0"])
    assert done.returncode == 0, done.stderr
    records = server.records(run.name)
    stops = {}
    for at, record in enumerate(records, 1):
        server.vote(record, "annotator-1", "no" if is_unsafe(rows[record["external_id"]]) else "yes")
        if at % 15 == 0 or at == len(records):
            assert command([*runs, "review", "pull", run.name]).returncode == 0
            for bound in (0.02, 0.6):
                gated(run, unsafe_upper_bound=bound)
                outlook = outlook_of(run)
                assert outlook is not None
                if outlook.below is not None:
                    stops.setdefault(bound, (at, outlook.below))
    assert stops[0.02][1] is False
    assert stops[0.6][1] is True
    assert min(at for at, _ in stops.values()) < len(records)
    for words in ("agree", "apply", "status"):
        done = command([*runs, "review", words, run.name])
        assert done.returncode == 0, done.stderr
    gated(run, unsafe_upper_bound=0.6)
    share = agree(run)["unsafe_share"]
    assert share["low"] <= truth <= share["high"]
    assert share["anytime"]["low"] <= truth <= share["anytime"]["high"]
    check_gate(run)
    gated(run, unsafe_upper_bound=0.02)
    agree(run)
    with pytest.raises(UserError, match="more votes will not help"):
        check_gate(run)
