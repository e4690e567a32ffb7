"""Answers kept in groups: whoever waits hears of the disk, and whoever stops waiting takes nothing away."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from pipelines.teachers.group_commit import GroupCommit
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.ledger_file import LedgerError
from pipelines.teachers.reply import Reply

REPLY = Reply("Sorry.", "Harm.", None, "stop", 10, 5, 0.5, 0.1)


def test_an_answer_is_in_the_ledger_when_the_wait_is_over(tmp_path: Path) -> None:
    async def keep() -> None:
        kept, other = GroupCommit(tmp_path / "ledger.sqlite"), Ledger(tmp_path / "ledger.sqlite")
        for number in range(3):
            await asyncio.gather(*(kept.put(f"{number}-{one}", "m", REPLY).on_disk() for one in range(20)))
            assert other.totals().answers == 20 * (number + 1)
        other.close()
        kept.close()

    asyncio.run(keep())


def test_what_nobody_waits_for_any_more_is_kept(tmp_path: Path) -> None:
    async def keep() -> None:
        kept = GroupCommit(tmp_path / "ledger.sqlite")
        waits = asyncio.create_task(kept.put("k", "m", REPLY).on_disk())
        await asyncio.sleep(0)
        waits.cancel()
        kept.put("later", "m", REPLY)
        kept.use("judge", "k")
        kept.close()

    asyncio.run(keep())
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.get("k") == ledger.get("later") == REPLY
    assert ledger.used_keys() == {"k"}
    ledger.close()


def test_an_error_of_the_disk_reaches_everyone_who_waits(tmp_path: Path) -> None:
    async def keep() -> None:
        kept = GroupCommit(tmp_path / "ledger.sqlite")
        with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
            db.execute("DROP TABLE answers")
        waits = [kept.put(key, "m", REPLY).on_disk() for key in "ab"]
        for found in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(found, LedgerError)
        kept.use("judge", "k")
        kept.close()

    asyncio.run(keep())


def test_an_error_that_nobody_waits_for_is_raised_at_the_end(tmp_path: Path) -> None:
    async def keep() -> None:
        kept = GroupCommit(tmp_path / "ledger.sqlite")
        with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
            db.execute("DROP TABLE used")
        kept.use("judge", "k")
        with pytest.raises(LedgerError):
            kept.close()

    asyncio.run(keep())
