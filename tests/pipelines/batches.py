"""A run that is asked in batches, and what its ledger and the provider have of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from pipelines.generate.plan import Ask, plan, prompts_of
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.teacher import Teacher
from pipelines.teachers.batch.stage import BatchOutcome, BatchRules, run_batches
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.reply import Reply

ROOT = Path(__file__).parents[2]
QUICK = BatchRules(poll_s=0.05, longest_poll_s=0.2, settle_s=0.1, call_timeout_s=60)
NAME = "flags"


@pytest.fixture
def begin(new_run: Callable[..., RunFolder]) -> Callable[..., RunFolder]:
    """A run of ten harmful prompts in three variants, asked of one teacher: 30 requests."""

    def with_options(url: str, **teacher: Any) -> RunFolder:
        sets = tuple(f"teachers.{NAME}.{key}={json.dumps(value)}" for key, value in teacher.items())
        variants = ("direct", "improved", "short")
        return new_run(harmful=10, benign=0, variants=variants, base_url=url, model="rehearsal-r1", sets=sets)

    return with_options


def asks_of(run: RunFolder) -> Iterator[Ask]:
    return plan(load_config(run), prompts_of(run), teacher=NAME)


def teacher_of(run: RunFolder) -> Teacher:
    return load_config(run).teachers[NAME]


def submit(
    run: RunFolder,
    url: str,
    rules: BatchRules = QUICK,
    asks: list[Ask] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> BatchOutcome:
    ledger = Ledger(run.path / "ledger.sqlite")
    ledger.forget_failures()
    try:
        return run_batches(run, NAME, teacher_of(run), url, asks or asks_of(run), ledger, stopped, rules)
    finally:
        ledger.close()


def counts(url: str) -> dict[str, int]:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return dict(json.load(answer)["batches"])


def replies(run: RunFolder) -> dict[str, Reply]:
    ledger = Ledger(run.path / "ledger.sqlite")
    try:
        return {ask.key: reply for ask in asks_of(run) if (reply := ledger.get(ask.key)) is not None}
    finally:
        ledger.close()


def failures(run: RunFolder) -> list[tuple[str, int]]:
    ledger = Ledger(run.path / "ledger.sqlite")
    try:
        return ledger.failures()
    finally:
        ledger.close()
