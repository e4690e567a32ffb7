"""The request ledger: what was answered stays, whatever happens to the process that asked."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from hypothesis import given
from hypothesis import strategies as st

from pipelines.teachers.ledger import Ledger, request_key
from pipelines.teachers.ledger_file import opened_to_read
from pipelines.teachers.reply import Reply

REPLY = Reply("Sorry.", "Harm.", None, "stop", 10, 5, 0.5, 0.1)
MESSAGES = [{"role": "user", "content": "Hello"}]


def test_a_reply_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.get("k") is None
    ledger.put("k", "m", REPLY)
    assert ledger.get("k") == REPLY
    ledger.close()
    assert Ledger(tmp_path / "ledger.sqlite").get("k") == REPLY


def test_a_key_keeps_its_first_reply(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put("k", "m", REPLY)
    ledger.put("k", "m", Reply("Other.", None, None, "stop", 1, 1, 0.1, 0.1))
    assert ledger.get("k") == REPLY
    assert ledger.totals().answers == 1


def test_lone_surrogates_of_a_server_do_not_stop_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put("k", "m", Reply("a\ud800b", None, None, "stop", 1, 1, None, 0.1))
    kept = ledger.get("k")
    assert kept is not None
    assert kept.content is not None
    assert kept.content[0] == "a"
    assert kept.content[-1] == "b"


def test_totals_add_up_tokens_and_cost(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for key in "abc":
        ledger.put(key, "m", REPLY)
    ledger.fail("d", "boom", fatal=False)
    totals = ledger.totals()
    assert (totals.answers, totals.failures, totals.input_tokens, totals.output_tokens) == (3, 1, 30, 15)
    assert totals.cost == 1.5


def test_only_a_fatal_failure_is_a_reason_to_stop(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.fail("a", "odd prompt", fatal=False)
    assert ledger.fatal_error() is None
    ledger.fail("b", "wrong key", fatal=True)
    assert ledger.fatal_error() == "wrong key"
    ledger.forget_failures()
    assert ledger.fatal_error() is None


@given(st.text(), st.text(), st.integers(0, 3), st.integers(0, 3))
def test_the_key_tells_apart_what_determines_the_answer(one: str, other: str, first: int, second: int) -> None:
    keys = [request_key("m", [{"role": "user", "content": text}], {}, n) for text, n in ((one, first), (other, second))]
    assert (keys[0] == keys[1]) == ((one, first) == (other, second))


def test_the_key_does_not_depend_on_the_order_of_fields() -> None:
    assert request_key("m", MESSAGES, {"a": 1, "b": 2}, 0) == request_key("m", MESSAGES, {"b": 2, "a": 1}, 0)


def test_a_new_ledger_can_be_opened_by_several_at_once(tmp_path: Path) -> None:
    for number in range(100):
        path = tmp_path / str(number) / "ledger.sqlite"
        gate = Barrier(4)

        def answers(path: Path = path, gate: Barrier = gate) -> int:
            gate.wait(300)
            ledger = Ledger(path)
            try:
                return ledger.totals().answers
            finally:
                ledger.close()

        with ThreadPoolExecutor(4) as pool:
            opened = [pool.submit(answers) for _ in range(4)]
            assert [one.result() for one in opened] == [0] * 4


def test_one_that_looks_in_and_leaves_takes_no_answers_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    looking = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT key FROM answers'))"

    def seen_by_another() -> str:
        return subprocess.run(
            [sys.executable, "-c", looking, path], stdout=subprocess.PIPE, check=True, text=True
        ).stdout

    ledger = Ledger(path)
    ledger.put("a", "m", REPLY)
    Ledger(path).close()
    with opened_to_read(path):
        pass
    assert seen_by_another() == "('a',)\n"
    ledger.put("b", "m", REPLY)
    assert seen_by_another() == "('a',) ('b',)\n"


def test_what_was_kept_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code = (
        "import sys; from pathlib import Path; from pipelines.teachers.ledger import Ledger, Reply\n"
        f"ledger = Ledger(Path({str(path)!r}))\n"
        "for n in range(10**6):\n"
        "    ledger.put(str(n), 'm', Reply('x' * 500, None, None, 'stop', 1, 1, None, 0.0))\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        output = ""
        deadline = time.monotonic() + 300
        while output.strip() != "200" and time.monotonic() < deadline:
            output = writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        last = int([output, *writer.stdout.read().splitlines()][-1])
    assert last >= 200
    ledger = Ledger(path)
    for n in range(last + 1):
        assert ledger.get(str(n)) is not None
