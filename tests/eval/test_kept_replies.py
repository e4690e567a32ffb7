"""Attackers' replies that no student changes: several evaluations, at once and after each other, ask for them once."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from subprocess import PIPE
from threading import Event
from typing import Any

from pipelines.teachers.ledger import Ledger
from tests.commands import Command, command

Serving = Callable[..., AbstractContextManager[Any]]
PATIENCE_S = 300


def test_one_evaluation_asks_the_attacker_and_the_others_wait_for_its_reply(serving: Serving, tmp_path: Path) -> None:
    """a is killed while it asks, b goes on from there; then a and c at once: what b could not have is asked for once."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"query": f"Q{n}"}) + "\n" for n in range(3)), encoding="utf-8")
    readable, held, release = Event(), Event(), Event()
    arrived: dict[str, Event] = {}

    def question_of(body: dict[str, Any]) -> str:
        return next(name for name in ("Q0", "Q1", "Q2") if name in body["messages"][-1]["content"])

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
        held.set()
        while not release.is_set():
            await asyncio.sleep(0.01)

    def asked(attacker: Any, name: str) -> int:
        return sum(question_of(body) == name for body in attacker.of("attacker"))

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
            # 1: a question whose rewrite cannot be read is unscored, and named.
            assert process.returncode == 0, errors
            return str(out)

        with started("a") as first:
            assert held.wait(PATIENCE_S)
            with started("b") as second:
                came("b", "Q0")
                first.kill()
                first.wait(PATIENCE_S)
                release.set()
                assert "b: attacker: 3 prompts asked for, 0 kept from before." in ended(second)
        # Three tries at what cannot be read; a's own request may have been under way when it ended.
        assert asked(endpoint, "Q2") in (3, 4)
        with closing(Ledger(tmp_path / "runs" / ".attacker" / "ledger.sqlite")) as ledger:
            assert len(list(ledger.every_key())) == 2
        plan = json.loads(command([*words("c"), "--plan", "--json"], cwd=tmp_path).stdout)
        assert (plan["requests"]["attacker rewriter"], plan["kept"]) == (1, 2)
        release.clear()
        readable.set()
        before = len(endpoint.of("attacker"))
        with started("a") as first, started("c") as third:
            for model in ("a", "c"):
                came(model, "Was it Q0?")
                came(model, "Was it Q1?")
            release.set()
            shown = ended(first) + ended(third)
        assert len(endpoint.of("attacker")) == before + 1
        assert "1 prompts asked for, 2 kept from before." in shown
        assert "0 prompts asked for, 3 kept from before." in shown
        assert sorted(endpoint.asked("c")) == ["Q0", "Q1", "Q2", "Was it Q0?", "Was it Q1?", "Was it Q2?"]
        # Tokens of the attacker's are in the log of who asked, once.
        (tmp_path / "runs" / ".attacker" / "ledger.sqlite").write_bytes(b"No ledger." * 20)
        done = command(words("d"), cwd=tmp_path)
        assert (done.returncode, endpoint.of("d")) == (2, [])
        assert "is damaged, or no ledger" in done.stderr
