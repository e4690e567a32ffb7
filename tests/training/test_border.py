"""What is published names no path, user or host of this machine: every byte that reaches a Hub is searched."""

import json
import shutil
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cards.card.model_card import local_place
from pipelines.errors import UserError
from pipelines.public_names import check_public, public_name
from tests.cards.conftest import serving
from tests.commands import command
from training.recipes.recipe import TEMPLATES

MARK = "zxmarkerzx"
RECIPE = {"mixture": {"improved": 8}, "overlong_share": 0.9, "max_length": 512, "gradient_checkpointing": False}
FILES = "README.md chat_template.jinja config.json generation_config.json metrics.jsonl model.safetensors recipe.yaml"


def bytes_of(path: Path) -> bytes:
    """A file's bytes, those of a table uncompressed."""
    data = path.read_bytes()
    return data + str(pq.read_table(path).to_pylist()).encode() if data[:4] == b"PAR1" else data


def test_nothing_that_is_pushed_names_a_path_a_user_or_the_host(
    tiny_student: Path, released_once: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home" / MARK
    student, release = home / f"{MARK}-kept" / "tiny", home / "runs" / "small" / "release"
    shutil.copytree(tiny_student, student)
    shutil.copytree(released_once, release.parent)
    shutil.copy(TEMPLATES / "smollm2.jinja", home / "own.jinja")
    (home / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "chat_template": f"../{MARK}/own.jinja"}))
    (home / "hub").mkdir()
    with serving(home / "hub") as hub:
        env = hub.env() | {"HOME": str(home), "USER": MARK, "LOGNAME": MARK}
        words = ["train", "recipe.yaml", "--dataset", str(release), "--student", str(student), "--output", "student"]
        for each in ([*words, "--push", "acme/student"], ["publish", "small", "--repo", "acme/safe"]):
            done = command(each, home, env)
            assert done.returncode == 0, done.stderr
        (home / "student" / "notes.md").write_text(f"see {home}/student\n")
        refused = command(["student", "push", "student", "--repo", "acme/student"], home, env)
        kept = [path for path in (home / "hub" / "root").rglob("*") if path.is_file()]
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert f"student/notes.md holds '{home}" in refused.stderr
    trees = [set(json.loads(path.read_text())["tree"]) for path in (home / "hub" / "root" / "commits").iterdir()]
    (names,) = [tree - {".gitattributes"} for tree in trees if "training.json" in tree]
    more = "tensorboard/events.out.tfevents.saferthoughts tokenizer.json tokenizer_config.json training.json"
    assert names == {*FILES.split(), *more.split()}
    assert len(kept) > len(names) + len(list(release.rglob("*.*")))
    host = socket.gethostname() if len(socket.gethostname()) > 8 else MARK
    assert [path.name for path in kept if MARK.encode() in bytes_of(path) or host.encode() in bytes_of(path)] == []
    # What going on here needs is kept here.
    assert (local_place(home / "student", "student"), local_place(home / "student", "dataset")) == (student, release)


@pytest.mark.parametrize(
    ("place", "parts", "name"),
    [
        ("/Users/alice/student", 2, "student"),
        ("/Users/alice/runs/demo/model", 2, "demo/model"),
        ("/x/hub/models--acme--tiny/snapshots/1f3a", 1, "acme/tiny"),
        ("../alice/own.jinja", 1, "own.jinja"),
        ("~/rows.jsonl", 1, "rows.jsonl"),
        ("acme/tiny@v1", 1, "acme/tiny@v1"),
        ("smollm2", 1, "smollm2"),
        (str(Path.home() / "rows.jsonl"), 2, "rows.jsonl"),
    ],
)
def test_a_path_is_named_without_the_folders_it_is_in(place: str, parts: int, name: str) -> None:
    assert public_name(place, parts) == name


def test_a_path_is_found_wherever_it_lies_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(b"." * (1_000_000 - 5) + str(tmp_path).encode())
    with pytest.raises(UserError, match="a path of this machine, and is not published"):
        check_public(tmp_path, {"README.md": path})
