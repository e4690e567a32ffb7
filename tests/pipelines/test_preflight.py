"""The first question of a run, by the real commands against scripted servers: what stops, what is adapted, what it
costs, and that it is asked once."""

import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.generate.plan import plan, prompts_of
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.config import load_config
from pipelines.settings.options import Options
from pipelines.teachers.first_question import MESSAGES
from pipelines.teachers.ledger import Ledger
from tests import commands
from tests.pipelines.reply_bodies import KEPT, Kind, good, refused
from tests.pipelines.reply_server import Server, serving_beside

ROOT = Path(__file__).parents[2]
REASONED = good({"role": "assistant", "content": "No.", "reasoning_content": "I should not."})
PLAIN = good({"role": "assistant", "content": "75 minutes."})
LONG_TEXT = "This model's maximum context length is 4096 tokens. However, you requested 8292 tokens (100 in the messages, 8192 in the completion)."  # noqa: E501


def command(run: RunFolder, *arguments: str) -> "subprocess.CompletedProcess[str]":
    words = ["--runs", str(run.path.parent), arguments[0], run.name, *arguments[1:]]
    return commands.command(words, ROOT, {**os.environ, "COLUMNS": "200", "NO_PROXY": "*"}, timeout=400)


def at(url: str, *sets: str, **more: Any) -> dict[str, Any]:
    sets = tuple(f"teachers.flags.{text}" for text in sets)
    return {"base_url": url, "model": "m", "sets": (*sets, "judging.judges=[rules]"), "harmful": 2, "benign": 1, **more}


def kind(*plays: bytes) -> Kind:
    return Kind("", "", plays, KEPT)


def is_first(body: dict[str, Any]) -> bool:
    return bool(body["messages"] == list(MESSAGES))


@pytest.mark.parametrize(
    ("answer", "models", "expected"),
    [
        (refused(404, "The model `m` does not exist"), [{"id": "m-1"}, {"id": "n"}], "Unknown model at"),
        (refused(401, "bad key"), None, "set api_key_env, HTTP 401"),
        (PLAIN, None, "shows no reasoning"),
        (refused(400, "it is wrong somehow"), None, "does not answer: HTTP 400: it is wrong somehow"),
        (REASONED, [{"id": "m", "max_model_len": 128}], "window of 'm'"),
    ],
    ids=["wrong model", "wrong key", "no reasoning", "malformed", "no room"],
)
def test_what_cannot_work_stops_with_one_line_before_anything_is_asked(
    new_run: Callable[..., RunFolder], answer: bytes, models: Any, expected: str
) -> None:
    with serving_beside(lambda body: kind(answer), first_too=True, models=models) as server:
        run = new_run(**at(server.url))
        done = command(run, "run")
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert [body for body in server.bodies if not is_first(body)] == []
    assert len(server.bodies) <= 1
    assert not run.table_path("responses").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1", "https://127.0.0.1:9/v1"])
def test_a_dead_endpoint_is_named_without_retries(new_run: Callable[..., RunFolder], url: str) -> None:
    done = command(new_run(**at(url)), "generate")
    assert done.returncode == 2
    assert f"No server answers at {url} for teacher 'flags'" in done.stderr


def o_series(body: dict[str, Any]) -> Kind:
    if "max_tokens" in body:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return kind(refused(400, text))
    for name in ("temperature", "top_p"):
        if name in body:
            text = f"'{name}' does not support 0.6 with this model. Only the default (1) value is supported."
            return kind(refused(400, f"Unsupported value: {text}"))
    if body["max_completion_tokens"] > 4096 - 200:
        return kind(refused(400, LONG_TEXT))
    return kind(REASONED)


def test_what_a_server_refuses_is_left_out_once_and_kept_in_the_run(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(o_series, first_too=True) as server:
        run = new_run(variants=("direct",), **at(server.url))
        done = command(run, "generate")
        firsts = sum(map(is_first, server.bodies))
        again = command(run, "generate")
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    for words in ("it calls max_tokens max_completion_tokens", "temperature (it was 0.6) is not sent",
                  "top_p (it was 0.95) is not sent", "in place of 8192, since its window is 4096"):  # fmt: skip
        assert words in done.stderr
    assert firsts == 5
    assert sum(map(is_first, server.bodies)) == firsts, "the second call asks no first question"
    rows = [body for body in server.bodies if not is_first(body)]
    assert len(rows) == 3
    assert all({"temperature", "top_p", "max_tokens"}.isdisjoint(body) for body in rows)
    teacher = load_config(run).teachers["flags"]
    assert (teacher.limit_field, teacher.sampling.temperature, teacher.sampling.top_p) == (
        "max_completion_tokens", None, None,
    )  # fmt: skip
    assert {body["max_completion_tokens"] for body in rows} == {teacher.sampling.max_tokens}
    assert 2048 <= (teacher.sampling.max_tokens or 0) < 4096


def test_a_window_that_the_server_lists_is_heeded(new_run: Callable[..., RunFolder]) -> None:
    models = [{"id": "m", "max_model_len": 4096}, {"id": "n"}]
    with serving_beside(lambda body: kind(REASONED), first_too=True, models=models) as server:
        run = new_run(variants=("direct",), **at(server.url))
        done = command(run, "generate")
    assert done.returncode == 0, done.stderr
    assert "in place of 8192, since its window is 4096 tokens" in done.stderr
    assert all(body["max_tokens"] < 4096 for body in server.bodies)
    assert sum(map(is_first, server.bodies)) == 1


def test_reasoning_is_not_wanted_where_the_user_says_so(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(lambda body: kind(PLAIN), first_too=True) as server:
        run = new_run(variants=("direct",), **at(server.url))
        done = command(run, "generate", "--allow-no-reasoning")
    assert done.returncode == 0, done.stderr
    assert "answers, without reasoning" in done.stderr
    assert len(server.bodies) == 4


def test_a_run_of_fixed_texts_only_builds_no_release(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(lambda body: kind(PLAIN), first_too=True) as server:
        run = new_run(variants=("direct", "nocot"), **at(server.url, benign=0))
        done = command(run, "run", "--allow-no-reasoning")
    assert done.returncode == 1, done.stderr
    assert "fixed texts only (nocot)" in done.stderr
    assert not (run.path / "release").exists()


def judged_by(server: Server, other: Server, *more: str) -> dict[str, Any]:
    """A teacher and a judge, each with prices, as a file of teachers would have them."""
    price = "{input: 1000, output: 1000}"
    sets = (
        f"teachers.flags.price={price}",
        "judging.judges=[mine]",
        "judges.mine={kind: patterns, teacher: other, output: text}",
        f"judge_teachers.other={{base_url: '{other.url}', model: j, price: {price}}}",
        *more,
    )
    return {"base_url": server.url, "model": "m", "sets": sets, "harmful": 3, "benign": 0, "variants": ("realsafe",)}


def test_one_cap_covers_judging_and_the_estimate_tells_of_all_stages(new_run: Callable[..., RunFolder]) -> None:
    with (
        serving_beside(lambda body: kind(REASONED)) as server,
        serving_beside(lambda body: kind(PLAIN)) as other,
    ):
        run = new_run(**judged_by(server, other))
        # An answer costs 0.012: two first questions and three rows take 0.06, which leaves one verdict.
        done = command(run, "run", "--max-cost", "0.075")
    assert done.returncode == 1, done.stderr
    assert "3 of 3 responses are to be asked for: about" in done.stderr
    assert "by the study's lengths" in done.stderr
    assert "with judging (about 3 requests) and repair (about" in done.stderr
    assert "$" in done.stderr.split("with judging")[1].splitlines()[0]
    assert "Stopped at the budget" in done.stderr
    assert (server.first, other.first, len(server.bodies)) == (1, 1, 3)
    assert len(other.bodies) < 3
    ledger = Ledger(run.path / "ledger.sqlite")
    assert ledger.totals().cost <= 0.075 + 1e-9
    assert ledger.asked_for("preflight") == 2
    ledger.close()


def test_a_judge_that_is_not_there_is_named_before_a_judgement_is_asked(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(lambda body: kind(REASONED)) as server:
        nobody = Server(lambda body: kind(PLAIN), False)
        nobody.url = "http://127.0.0.1:9/v1"
        run = new_run(**judged_by(server, nobody))
        done = command(run, "run")
    assert done.returncode == 2
    assert "No server answers at http://127.0.0.1:9/v1 for teacher 'other'" in done.stderr


def test_first_errors_show_with_their_text_and_count_as_no_answers(new_run: Callable[..., RunFolder]) -> None:
    def choose(body: dict[str, Any]) -> Kind:
        return kind(refused(400, "odd row")) if len(server.bodies) == 2 else kind(REASONED)

    with serving_beside(choose) as server:
        run = new_run(variants=("direct",), **at(server.url, "in_flight=1"))
        done = command(run, "generate")
    assert done.returncode == 1
    assert "a request failed: HTTP 400: odd row" in done.stderr
    assert "generate: 2/3 answers" in done.stderr


def several(*urls: str) -> dict[str, Any]:
    return at(urls[0], "base_url=null", f"base_urls=[{', '.join(urls)}]", variants=("direct",))


def test_each_of_several_servers_is_asked_and_a_dead_one_is_named(new_run: Callable[..., RunFolder]) -> None:
    dead = "http://127.0.0.1:9/v1"
    with (
        serving_beside(lambda body: kind(REASONED)) as one,
        serving_beside(lambda body: kind(REASONED)) as two,
    ):
        done = command(new_run(**several(one.url, dead, two.url)), "generate")
    assert done.returncode == 0, done.stderr
    assert (one.first, two.first) == (1, 1)
    assert f"teacher flags: answers at {one.url}" in done.stderr
    assert f"teacher flags: answers at {two.url}" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if f"No server answers at {dead}" in line]
    assert line.endswith("The run goes on with the others, and asks this one once it is back.")
    assert len(one.bodies) + len(two.bodies) == 3
    # Each answer is counted as 7 and 5 tokens.
    assert "generate: 3/3 answers" in done.stderr
    assert ", 36 tokens in all, done" in done.stderr


def test_one_of_several_servers_that_refuses_stops_the_run(new_run: Callable[..., RunFolder]) -> None:
    with (
        serving_beside(lambda body: kind(REASONED)) as one,
        serving_beside(lambda body: kind(refused(401, "bad key")), first_too=True) as two,
    ):
        done = command(new_run(**several(one.url, two.url)), "generate")
    assert done.returncode == 2
    assert f"{two.url} refuses it without a key" in done.stderr
    assert f"The others answer ({one.url}): mend this one, or take it out of base_urls." in done.stderr
    assert (len(one.bodies), len(two.bodies)) == (0, 1)


def test_a_server_that_is_added_is_asked_and_has_to_take_the_settings(new_run: Callable[..., RunFolder]) -> None:
    with (
        serving_beside(lambda body: kind(REASONED)) as one,
        serving_beside(lambda body: kind(REASONED)) as two,
        serving_beside(o_series, first_too=True) as odd,
    ):
        run = new_run(**several(one.url))
        assert command(run, "generate").returncode == 0
        planned = [ask.key for ask in plan(load_config(run), prompts_of(run))]
        for server in (two, odd):
            with closing(Ledger(run.path / "ledger.sqlite")) as ledger:
                ledger.drop(planned[:1])
            change(run, Options(sets=(f"teachers.flags.base_urls=[{one.url}, {server.url}]",)))
            done = command(run, "generate")
            if server is two:
                assert done.returncode == 0, done.stderr
                assert f"teacher flags: answers at {two.url}" in done.stderr
    assert (one.first, two.first) == (1, 1)
    assert done.returncode == 2
    assert f"{odd.url} does not take the settings under which this run has answers" in done.stderr


def test_several_servers_are_asked_as_all_of_them_take_it(new_run: Callable[..., RunFolder]) -> None:
    longer = [{"id": "m", "max_model_len": 6000}]
    shorter = [{"id": "m", "max_model_len": 4096}]
    with (
        serving_beside(lambda body: kind(REASONED), models=longer) as one,
        serving_beside(o_series, first_too=True, models=shorter) as two,
    ):
        run = new_run(**several(one.url, two.url))
        done = command(run, "generate")
        again = command(run, "generate")
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    teacher = load_config(run).teachers["flags"]
    assert teacher.limit_field == "max_completion_tokens"
    assert teacher.sampling.temperature is None
    assert (teacher.sampling.max_tokens or 0) < 4096
    assert one.first == 1
    ledger = Ledger(run.path / "ledger.sqlite")
    assert ledger.asked_for("preflight") == 2
    ledger.close()
