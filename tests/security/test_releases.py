"""A release that somebody else made reaches no file outside its folder, runs nothing and unfolds to nothing huge."""

import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cards.compare import compare
from cards.release.regenerate import Answering, regenerate
from cards.release_folder import name_fault, open_release
from cards.verify import verify
from pipelines.documents import json_of, parquet_batches, yaml_of
from pipelines.errors import UserError
from tests.security.commands import Command
from tests.security.hostile import FAULTY, REFUSED
from training.mixtures.mixture import draw


def test_there_are_as_many_as_are_spoken_of() -> None:
    assert len({*REFUSED, *FAULTY}) >= 47 + 20


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_folder_is_refused_by_every_reader(
    release: Path, released_once: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, word = REFUSED[name]
    spoil(release)
    found = verify(release)
    assert word in "; ".join(found.faults)
    assert all(fault.isprintable() for fault in found.faults)
    before = sorted(path.name for path in tmp_path.iterdir())
    for read in (
        lambda: open_release(release),
        lambda: compare(released_once / "release", release),
        lambda: regenerate(release, tmp_path / "runs", "new", Answering("rehearsal")),
        lambda: draw(release, {"improved": 1}, 0, tmp_path / "cache"),
    ):
        with pytest.raises(UserError) as caught:
            read()  # type: ignore[no-untyped-call]
        assert word in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", FAULTY)
def test_a_release_that_names_what_it_is_not_is_told(
    release: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside.txt").write_text("secret")
    spoil, word = FAULTY[name]
    spoil(release)
    try:
        faults = "; ".join(verify(release).faults)
    except UserError as error:
        faults = str(error)
    assert word in faults
    assert "secret" not in faults
    assert not list(tmp_path.rglob("HIT"))


def test_the_command_names_what_is_refused(command: Command, release: Path) -> None:
    (release / "load.py").write_text("import os; os.system('touch HIT')")
    (release / "NOTES.txt").symlink_to("/etc/passwd")
    done = command("release", "verify", str(release))
    assert done.code == 1, done.output
    assert "load.py is a program" in done.output
    assert "NOTES.txt is a link (to /etc/passwd)" in done.output
    assert "root:" not in done.output


def test_one_long_text_for_a_million_rows_is_read_in_small_batches(tmp_path: Path) -> None:
    """A few kilobytes that unfold to 50 GB, whatever the footer says: the dictionary holds the text once."""
    long, path = "a" * 5_000_000, tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array([long]))
    pq.write_table(pa.table({"text": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="unfolds"):
        for batch in parquet_batches(path):
            assert batch.nbytes < 600_000_000
    # Kilobytes: a batch as it was asked for before would have taken 20 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3_000_000


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        + "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else '*b'] * 10)}]\n" for n in range(9)),
        "[" * 5_000,
        "!!python/object/apply:os.system ['touch HIT']",
        "!!python/name:os.system",
        "a: 2026-13-45",
        "? [a]\n: b",
        "\x00",
        "9" * 9_000,
    ],
    ids=lambda text: text[:20],
)
def test_yaml_that_is_a_bomb_or_a_program_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="It is not YAML") as caught:
        yaml_of(text, "It")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "9" * 9_000, "nope", ""])
def test_json_that_is_a_bomb_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_of(text, "It")


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/../b", "a//b", "./a", "a\x00b", "a\u200b.md", "x" * 600])
def test_names_that_lead_elsewhere_are_faults(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize("name", ["README.md", "data/improved/train-00000-of-00001.parquet", "plots/größe.svg", "..a"])
def test_names_of_releases_are_not(name: str) -> None:
    assert name_fault(name) is None
