"""Testing a teacher: what is found of its reasoning, and one clear line where it does not answer.

The rehearsal server answers over HTTP; what it cannot play (a key refused, a field refused, hostile text) a small
server here does.
"""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.errors import UserError
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.settings.options import Options
from pipelines.settings.teacher import Teacher
from pipelines.teachers.probe import Probe, Support, chosen, probe, probe_table
from tests.commands import command

ROOT = Path(__file__).parents[2]


def at(url: str, **fields: Any) -> Teacher:
    return Teacher.model_validate({"base_url": url, "model": "rehearsal-r1", **fields})


def only(probes: list[Probe]) -> Probe:
    (one,) = probes
    return one


@contextmanager
def odd_server(**plays: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that plays its part: `message`, fields it `refuses`, a `status` for all; gives its URL, and requests."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = plays.get("models")
            if models is None:
                self.say(404, {"error": {"message": "no such page"}})
            else:
                self.say(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            if "status" in plays:
                self.say(plays["status"], {"error": {"message": plays.get("error", "it says no")}})
            elif refused := sorted(set(plays.get("refuses", ())) & set(body)):
                self.say(400, {"error": {"message": f"unknown field {refused[0]}"}})
            else:
                choice = {"index": 0, "finish_reason": plays.get("finish_reason", "stop"), "message": plays["message"]}
                usage = {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000}
                self.say(200, {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                               "choices": [choice], "usage": usage})  # fmt: skip

        def say(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        finally:
            server.shutdown()


def message(content: str = "75 minutes.", **fields: str) -> dict[str, str]:
    return {"role": "assistant", "content": content, **fields}


@pytest.mark.parametrize("style", ["reasoning_content", "reasoning", "inline", "missing_opener"])
def test_reasoning_is_found_wherever_the_server_puts_it(style: str, tmp_path: Path) -> None:
    with rehearsing(RehearsalSettings.model_validate({"style": style, "delay": 0.2})) as url:
        found = only(probe("t", at(url), tmp_path))
    assert (found.source, found.finish_reason, found.url, found.hint) == (style, "stop", url, "")
    assert found.reasoning
    assert found.answer
    assert "think>" not in found.reasoning + found.answer
    assert found.input_tokens > 10
    assert found.output_tokens > 10
    assert 0.2 <= found.latency_s < 5
    assert found.cost is None


def test_price_is_worked_out_where_the_entry_has_one(tmp_path: Path) -> None:
    with odd_server(message=message(reasoning="From 14:50 to 16:05.")) as (url, _):
        found = only(probe("t", at(url, price={"input": 0.5, "output": 2}), tmp_path))
    assert (found.input_tokens, found.output_tokens) == (1000, 2000)
    assert found.cost == pytest.approx(0.0045)


def test_refused_fields_are_told_apart_from_accepted_ones(tmp_path: Path) -> None:
    with odd_server(message=message(), refuses=["response_format"]) as (url, asked):
        found = only(probe("t", at(url), tmp_path))
    assert found.seed == Support(True)
    assert found.json_schema == Support(False, "HTTP 400: unknown field response_format")
    assert [sorted({"seed", "response_format"} & set(body)) for body in asked] == [[], ["seed"], ["response_format"]]
    assert [body["max_tokens"] for body in asked] == [8192, 16, 16]


def test_a_seed_that_the_entry_sends_anyway_needs_no_request_of_its_own(tmp_path: Path) -> None:
    with odd_server(message=message()) as (url, asked):
        found = only(probe("t", at(url, sampling={"seed": 7}), tmp_path))
    assert found.seed == Support(True)
    assert [body["seed"] for body in asked] == [7, 7]


def test_hostile_answers_are_shown_without_acting(tmp_path: Path) -> None:
    with odd_server(message=message("[bold]a[/bold]\n\x1b[2Jb \u202ec " + "d" * 5000, reasoning="\x07[/x] e")) as (
        url,
        _,
    ):
        found = probe("t", at(url), tmp_path)
    console = Console(width=400, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(probe_table(found))
    console.file.close()
    shown = console.export_text()
    assert r"[bold]a[/bold] \x1b[2Jb \u202ec ddd" in shown
    assert r"\x07[/x] e" in shown
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert len(only(found).answer) < 200


@pytest.mark.parametrize(
    ("plays", "fields", "hint"),
    [
        ({"message": message(reasoning="a"), "finish_reason": "length"}, {}, r"max_tokens \(8192\)"),
        (
            {"message": message(reasoning="a")},
            {"reasoning_style": "inline"},
            "came as 'reasoning', which reasoning_style",
        ),
        ({"message": message("<think>\na\n</think>\n\nb")}, {"reasoning_style": "field"}, "came as 'inline'"),
    ],
)
def test_what_to_change_is_told(plays: dict[str, Any], fields: dict[str, Any], hint: str, tmp_path: Path) -> None:
    with odd_server(**plays) as (url, _):
        found = only(probe("t", at(url, **fields), tmp_path))
    assert re.search(hint, found.hint)


def test_every_server_of_an_entry_is_asked(tmp_path: Path) -> None:
    with (
        rehearsing() as first,
        rehearsing(RehearsalSettings(style="inline")) as second,
    ):
        teacher = Teacher(model="rehearsal-r1", base_urls=(first, second))
        found = probe("t", teacher, tmp_path)
    assert [(one.url, one.source) for one in found] == [(first, "reasoning_content"), (second, "inline")]


def test_embedded_teacher_is_started_for_it(tmp_path: Path) -> None:
    found = only(probe(*chosen(Options(teacher="rehearsal")), tmp_path))
    assert (found.name, found.model, found.source) == ("rehearsal", "rehearsal-r1", "reasoning_content")
    assert list(tmp_path.iterdir()) == []


def test_options_change_the_entry_that_is_tested() -> None:
    name, teacher = chosen(Options(teacher="vllm", sets=("teachers.vllm.reasoning_style=inline",)))
    assert (name, teacher.reasoning_style) == ("vllm", "inline")
    assert chosen(Options(base_url="http://127.0.0.1:1/v1", model="m"))[1].model == "m"
    with pytest.raises(UserError, match="Name a teacher"):
        chosen(Options())


def test_unknown_model_is_told_with_the_nearest_that_the_server_has(tmp_path: Path) -> None:
    with rehearsing() as url, pytest.raises(UserError) as refused:
        probe("t", at(url, model="rehersal-r1"), tmp_path)
    assert str(refused.value) == (
        f"Unknown model at {url} 'rehersal-r1'. Did you mean 'rehearsal-r1'? Choose from: "
        "rehearsal-r1, rehearsal-4o, rehearsal-guard, rehearsal-judge, rehearsal-shield."
    )


def test_unknown_model_among_hundreds_lists_the_nearest_only(tmp_path: Path) -> None:
    models = [f"org/model-{number}" for number in range(300)]
    with odd_server(status=400, models=models) as (url, _), pytest.raises(UserError) as refused:
        probe("t", at(url, model="org/model-30x"), tmp_path)
    assert "(the nearest 12 of 300 are shown)" in str(refused.value)
    assert str(refused.value).count("org/model-") == 14


@pytest.mark.parametrize(
    ("plays", "fields", "expected"),
    [
        ({"status": 401}, {"api_key_env": "A_KEY"}, r"refuses the key in A_KEY, HTTP 401 \(.*it says no\)"),
        ({"status": 401}, {}, "refuses it without a key; set api_key_env, HTTP 401"),
        ({"status": 403}, {"api_key_env": "A_KEY"}, "refuses the key in A_KEY, HTTP 403"),
        ({"status": 404}, {}, "wants? a base_url that ends in /v1"),
        ({"status": 400, "models": ["rehearsal-r1"]}, {}, "does not answer: HTTP 400: it says no"),
        ({"status": 429}, {}, "does not answer: HTTP 429: it says no"),
        ({"status": 500, "error": "a\n\x1b[2Jb"}, {}, r"does not answer: HTTP 500: a \\x1b\[2Jb"),
    ],
)
def test_refusals_are_told_once_and_clearly(
    plays: dict[str, Any], fields: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-not-to-be-shown")
    with odd_server(**plays) as (url, asked), pytest.raises(UserError, match=expected) as refused:
        probe("t", at(url, **fields), tmp_path)
    assert len(asked) == 1
    assert "sk-not" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_server_is_told_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No server answers at http://127\.0\.0\.1:9/v1 for teacher 't'"):
        probe("t", at("http://127.0.0.1:9/v1"), tmp_path)


def test_missing_key_is_told_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with odd_server(message=message()) as (url, asked), pytest.raises(UserError, match="export A_KEY="):
        probe("t", at(url, api_key_env="A_KEY"), tmp_path)
    assert asked == []


def test_command_shows_a_table(tmp_path: Path) -> None:
    with rehearsing(RehearsalSettings(style="missing_opener")) as url:
        words = ["teachers", "test", "--base-url", url, "--model", "rehearsal-r1"]
        done = command(words, ROOT, {**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    assert rows["reasoning"].strip() == "found, inline before </think>, without an opening tag"
    assert rows["json_schema"].strip() == "accepted"
    assert rows["price"].strip() == "no price in its entry"
