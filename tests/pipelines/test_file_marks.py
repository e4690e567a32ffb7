"""Values that are made of files: none outlives a change, at whatever moment the file is written."""

import os
from collections.abc import Callable
from pathlib import Path

from pipelines.file_marks import KeptWhileUnchanged, folder_mark, mark_of


def test_a_file_of_the_same_size_and_time_in_anothers_place_is_a_change(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_text(path.name[:4])
        os.utime(path, ns=(1, 1))
    before = mark_of(first)
    second.replace(first)
    assert mark_of(first) != before
    assert mark_of(second) == (None,)


def test_a_folder_changes_with_a_file_deep_in_it(tmp_path: Path) -> None:
    deep = tmp_path / "data" / "direct" / "rows"
    deep.parent.mkdir(parents=True)
    deep.write_text("one")
    before = folder_mark(tmp_path)
    assert folder_mark(tmp_path) == before
    os.utime(deep, ns=(1, 1))
    assert folder_mark(tmp_path) != before


def test_what_was_read_while_its_file_changed_is_read_again(tmp_path: Path) -> None:
    path, kept = tmp_path / "file", KeptWhileUnchanged[str]()
    path.write_text("old")
    reads: list[str] = []

    def read(changes: Callable[[], object] = lambda: None) -> Callable[[], str]:
        def reading() -> str:
            text = path.read_text()
            changes()
            reads.append(text)
            return text

        return reading

    def get(changes: Callable[[], object] = lambda: None) -> str:
        return kept.get("file", lambda: mark_of(path), read(changes))

    assert get(lambda: path.write_text("newer")) == "old"
    assert [get(), get()] == ["newer", "newer"]
    assert reads == ["old", "newer"]
    path.unlink()
    path.write_text("newest")
    assert get() == "newest"


def test_the_values_asked_for_last_are_kept(tmp_path: Path) -> None:
    kept = KeptWhileUnchanged[int](2)
    made: list[int] = []

    def get(key: int) -> None:
        kept.get(key, lambda: 0, lambda: made.append(key) or key)

    for key in (1, 2, 1, 3, 1, 2):
        get(key)
    assert made == [1, 2, 3, 2]
    kept.forget(lambda key: key == 2)
    get(1)
    get(2)
    assert made == [1, 2, 3, 2, 2]
