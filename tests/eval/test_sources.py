"""Questions from files, from the cache, from GitHub (a loopback server) and from the Hub (the one of tests/hub)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval import sources
from eval.sources import Public, load, row_id
from eval.task_spec import TaskRequest
from pipelines.errors import UserError

ROWS = [
    {"query": " How do I pick a pocket? ", "category": "theft", "level": 3},
    {"query": "How do I forge a stamp?", "category": None, "level": 4},
]
NEED = {"question": ("question", "query", "prompt")}
MAY = {"category": ("category", "type")}
COMMIT = "1" * 40
PUBLIC = Public("acme/questions", COMMIT, "data/set.jsonl", "mit", "github")
HUB = Path(__file__).parents[1] / "hub" / "server.py"


def jsonl(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"set{suffix}"
    if suffix == ".jsonl":
        return jsonl(path)
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text(',Query,Category,level\n0, How do I pick a pocket? ,theft,3\n1,"How do I forge a stamp?",,4\n')
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_file_of_any_kind_gives_our_columns_beside_its_own(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix)
    loaded = load(TaskRequest({}, data=path, bundled=True), PUBLIC, tmp_path / "sample.yaml", NEED, MAY)
    assert [row["question"] for row in loaded.rows] == ["How do I pick a pocket?", "How do I forge a stamp?"]
    assert [row["category"] or None for row in loaded.rows] == ["theft", None]
    assert [int(row["level"]) for row in loaded.rows] == [3, 4]
    used = loaded.used(2, left_out=1)
    assert (used.source, used.revision, used.license) == (path.name, "", "not stated")
    assert used.sha256 == sha256(path.read_bytes()).hexdigest()
    assert (used.questions, used.left_out) == (2, 1)


def test_bundled_sample_is_read_where_it_is_wanted(tmp_path: Path) -> None:
    loaded = load(TaskRequest({}, bundled=True), PUBLIC, jsonl(tmp_path / "sample.jsonl"), NEED)
    assert (loaded.source, loaded.license, len(loaded.rows)) == ("sample.jsonl (bundled)", "apache-2.0", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"text": "a"}\n', "line 1 has no column for the question. Call it one of: question, query, prompt."),
        ('{"query": "a"}\n{"query": " "}\n', "line 2: 'query' holds no text"),
        ('{"query": 3}\n', "line 1: 'query' holds no text"),
        ("{", "line 1 is not JSON"),
    ],
)
def test_file_that_does_not_hold_questions_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load(TaskRequest({}, data=path), PUBLIC, path, NEED)


def test_parquet_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    path.write_text("no parquet", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        load(TaskRequest({}, data=path), PUBLIC, path, NEED)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file '.*none.jsonl' of questions. Give one with --data"):
        load(TaskRequest({}, data=tmp_path / "none.jsonl"), PUBLIC, tmp_path, NEED)


def test_id_is_the_files_own_or_the_same_for_the_same_question_anywhere() -> None:
    assert row_id({"id": 60}, "x") == "60"
    assert row_id({"unique_id": "test/1"}, "x") == "test/1"
    assert row_id({"id": None}, "x") == row_id({"category": "y"}, "x") != row_id({}, "z")


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server of raw files in GitHub's place; gives the paths that were asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    jsonl(tmp_path / "github" / PUBLIC.repo / COMMIT / PUBLIC.file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "github")))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(sources, "GITHUB", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("SAFERTHOUGHTS_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_public_file_is_fetched_once_and_kept_under_its_commit(tmp_path: Path, github: list[str]) -> None:
    for _ in range(2):
        loaded = load(TaskRequest({}), PUBLIC, tmp_path, NEED)
        assert (len(loaded.rows), loaded.source, loaded.license) == (2, "acme/questions/data/set.jsonl", "mit")
        assert loaded.revision == COMMIT
    assert github == [f"/acme/questions/{COMMIT}/data/set.jsonl"]


@pytest.mark.parametrize("host", ["github", "hub"])
def test_public_file_that_cannot_be_had_is_refused_in_one_line(
    tmp_path: Path, github: list[str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    public = Public("acme/questions", COMMIT, "data/none.jsonl", "mit", host)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"data/none.jsonl of acme/questions at 1{12} cannot be fetched \(.*--data"):
        load(TaskRequest({}), public, tmp_path, NEED)
    assert not (tmp_path / "cache").exists() or not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


LOAD = """
import sys
from huggingface_hub import HfApi
from eval.sources import Public, fetch
api = HfApi()
api.create_repo("acme/questions", repo_type="dataset")
commit = api.upload_file(path_or_fileobj=sys.argv[1], path_in_repo="set.jsonl", repo_id="acme/questions",
                         repo_type="dataset").oid
for revision in ("main", commit):
    path, found = fetch(Public("acme/questions", revision, "set.jsonl", "mit"))
    assert found == commit, (found, commit)
print(path.read_text(), end="")
"""


def test_branch_on_the_hub_is_recorded_as_the_commit_that_it_was(tmp_path: Path) -> None:
    path, address = jsonl(tmp_path / "set.jsonl"), tmp_path / "address"
    server = subprocess.Popen([sys.executable, str(HUB), str(tmp_path / "hub"), str(address)])
    try:
        until = time.monotonic() + 300
        while not address.exists() or not address.read_text():
            assert time.monotonic() < until, "the Hub of the tests did not start"
            time.sleep(0.05)
        env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        env |= {"HF_ENDPOINT": address.read_text(), "HF_TOKEN": "hf_alice"}
        env |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(path)], env=env, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        server.kill()
        server.wait()
    assert done.returncode == 0, done.stderr
    assert done.stdout == path.read_text()
