"""Attackers' replies that no student changes: several evaluations, at once and after each other, ask for them once."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import PIPE
from threading import Event
from typing import Any

from tests.commands import Command, command
from tests.eval.questions import written

Serving = Callable[..., AbstractContextManager[Any]]
PATIENCE_S = 300


def question_of(body: dict[str, Any]) -> str:
    return next(name for name in ("Q0", "Q1", "Q2") if name in body["messages"][-1]["content"])


def asked(attacker: Any, name: str) -> int:
    return sum(question_of(body) == name for body in attacker.of("attacker"))


def test_one_evaluation_asks_the_attacker_and_the_others_wait_for_its_reply(serving: Serving, tmp_path: Path) -> None:
    """a and b at once, then c, which asks for what could not be read before."""
    written(tmp_path, [{"query": f"Q{n}"} for n in range(3)])
    readable, release = Event(), Event()
    arrived: dict[str, Event] = {}

    def script(body: dict[str, Any]) -> str:
        name = question_of(body)
        if body["model"] != "attacker":
            return "Sorry, I can't help with that."
        text = json.dumps({"improvement": "", "prompt": f"Was it {name}?"})
        return text if name != "Q2" or readable.is_set() else "No."

    async def hold(body: dict[str, Any]) -> None:
        if body["model"] != "attacker":
            arrived.setdefault(f"{body['model']} {body['messages'][-1]['content']}", Event()).set()
            return
        while not release.is_set():
            await asyncio.sleep(0.01)

    def came(model: str, words: str) -> None:
        assert arrived.setdefault(f"{model} {words}", Event()).wait(PATIENCE_S)

    with serving(script, hold) as endpoint:
        entry = {"base_url": endpoint.url, "model": "attacker"}
        (tmp_path / "teachers.yaml").write_text(json.dumps({"rewriter": entry}), encoding="utf-8")

        def words(model: str) -> list[str]:
            given = ["--task", "past_tense", "--task", "none", "--attacker", "rewriter", "--guard", "rules"]
            given += [part for task in ("past_tense", "none") for part in ("--data", f"{task}=questions.jsonl")]
            return ["eval", "--base-url", endpoint.url, "--model", model, "--teachers", "teachers.yaml", *given]

        def started(model: str) -> Command:
            return Command(words(model), cwd=tmp_path, stdout=PIPE, stderr=PIPE)

        def ended(process: Command) -> str:
            out, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors
            return str(out)

        with started("a") as first, started("b") as second:
            # Both are under way before the attacker's first answer.
            came("a", "Q0")
            came("b", "Q0")
            release.set()
            shown = [ended(first), ended(second)]
        # Each tries what cannot be read three times.
        assert [asked(endpoint, name) for name in ("Q0", "Q1", "Q2")] == [1, 1, 6]
        found = [re.findall(r"attacker: (\d+) prompts? asked for, (\d+) kept from before", text) for text in shown]
        assert [sum(int(pair[0][at]) for pair in found) for at in (0, 1)] == [4, 2]
        plan = json.loads(command([*words("c"), "--plan", "--json"], cwd=tmp_path).stdout)
        assert (plan["requests"]["attacker rewriter"], plan["kept"]) == (1, 2)
        readable.set()
        third = command(words("c"), cwd=tmp_path)
        assert "c: attacker: 1 prompt asked for, 2 kept from before." in third.stdout, third.stderr
        assert asked(endpoint, "Q2") == 7
        assert sorted(endpoint.asked("c")) == ["Q0", "Q1", "Q2", "Was it Q0?", "Was it Q1?", "Was it Q2?"]
        (tmp_path / "runs" / ".attacker" / "ledger.sqlite").write_bytes(b"No ledger." * 20)
        done = command(words("d"), cwd=tmp_path)
        assert (done.returncode, endpoint.of("d")) == (2, [])
        assert "is damaged, or no ledger" in done.stderr
