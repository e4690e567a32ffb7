"""The service's own file: what an earlier version wrote is taken over."""

import sqlite3
from pathlib import Path

from service.store import Store, home_of


def test_a_file_of_an_earlier_version_keeps_its_tests(tmp_path: Path) -> None:
    with sqlite3.connect(home_of(tmp_path) / "service.sqlite") as db:
        db.execute("CREATE TABLE tests(teacher TEXT PRIMARY KEY, at REAL, answers INTEGER, told TEXT NOT NULL)")
        db.execute("INSERT INTO tests VALUES ('deepseek', 1.0, 1, 'deepseek answered')")
    db.close()
    for _ in range(2):
        store = Store(tmp_path)
        assert store.one("SELECT * FROM tests") == {
            "teacher": "deepseek", "at": 1.0, "answers": 1, "message": "deepseek answered",
        }  # fmt: skip
        store.close()
