"""A run whose teacher answers in batches: the same rows as asked one by one, and nothing asked one by one."""

import json
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest

from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.records import Response, from_table
from pipelines.rehearsal.server import rehearsing
from pipelines.runner.options import Caps, RequestOptions
from pipelines.runs import RunFolder

ASKED = ["response_id", "reasoning", "answer", "finish_reason", "output_tokens"]


def at(url: str, transport: str) -> dict[str, Any]:
    return {"base_url": url, "model": "rehearsal-r1", "sets": (f"teachers.flags.transport={transport}",)}


def rows_of(run: RunFolder) -> list[list[Any]]:
    return [[getattr(row, name) for name in ASKED] for row in from_table(Response, run.read("responses"))]


def test_a_batched_run_has_the_rows_of_one_asked_one_by_one(new_run: Callable[..., RunFolder]) -> None:
    with rehearsing() as url:
        run = new_run(harmful=4, benign=2, **at(url, "batch"))
        done = generate(run)
        batched = rows_of(run)
        with urlopen(url.removesuffix("/v1") + "/stats") as answer:
            assert json.load(answer)["requests"] == 1, "the first question alone"
        other = new_run(harmful=4, benign=2, **at(url, "requests"))
        (other.path / "ledger.sqlite").unlink()
        generate(other)
    assert (done.kept, done.failed, done.asked) == (26, 0, 22)
    assert batched == rows_of(other)


def test_a_cap_cannot_be_kept_in_batches_and_is_refused(new_run: Callable[..., RunFolder]) -> None:
    run = new_run(harmful=2, benign=1, **at("http://127.0.0.1:9/v1", "batch"))
    with pytest.raises(UserError, match="no cap can stop"):
        generate(run, RequestOptions(Caps(max_tokens=10)))
