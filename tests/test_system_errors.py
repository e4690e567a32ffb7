"""Errors of the system under the real commands: one line with path and remedy, exit code 2, nothing half-written."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from curation.quality.checks import check
from pipelines.errors import UserError, refusal_of
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from tests.commands import command

ROOT = Path(__file__).resolve().parents[1]
# Commands that write, and what they print of the file that they cannot write.
COMMANDS = {
    "prompts": ["prompts", "new", "--teacher", "rehearsal", "--harmful", "2", "--benign", "1"],
    "check": ["check", "small"],
    "select": ["select", "small"],
    "release build": ["release", "build", "small"],
    "ledger export": ["ledger", "export", "small", "{runs}/answers.jsonl"],
    "ledger prune": ["ledger", "prune", "small"],
    "sql --csv": ["sql", "small", "select * from responses", "--csv", "{runs}/rows.csv"],
}
READING = {
    "ledger show": ["ledger", "show", "small"],
    "sql": ["sql", "small", "select count(*) from responses"],
}


def typed(words: list[str], runs: Path, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, with a limit to the size of its files in bytes, as `ulimit -f` sets it."""
    limits = {} if largest is None else {resource.RLIMIT_FSIZE: largest}
    return command(["--runs", str(runs), *(word.replace("{runs}", str(runs)) for word in words)], limits=limits)


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert last.startswith("saferthoughts: "), done.stderr
    for part in parts:
        assert part in last


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small run of the rehearsal teacher, up to its checks."""
    runs = tmp_path_factory.mktemp("runs")
    words = ["run", "small", "--teacher", "rehearsal", "--harmful", "2", "--benign", "1", "--variant", "short"]
    done = typed([*words, "--until", "check"], runs)
    assert (runs / "small" / "accepted.parquet").exists(), done.stderr
    return RunFolder.open(runs, "small")


@pytest.fixture
def mounted(tmp_path: Path, run: RunFolder) -> Iterator[Callable[..., Path]]:
    """A file system of its own with the run in it."""
    point = tmp_path / "disk"
    point.mkdir()

    def mount(size: str, option: str = "rw") -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("file systems cannot be mounted here")
        shutil.copytree(run.path.parent, point / "runs")
        if option == "ro":
            subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
        return point / "runs"

    yield mount
    subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)


def state_of(runs: Path) -> dict[str, bytes]:
    """Every file but the ledger's, whose own pages may move, and locks."""
    files = (path for path in runs.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(runs)): path.read_bytes() for path in files if "ledger.sqlite" not in path.name}


@pytest.mark.parametrize("name", ["prompts", "check", "release build", "ledger prune", "sql --csv"])
def test_read_only_file_system_is_one_line(mounted: Callable[..., Path], name: str) -> None:
    runs = mounted("2m", "ro")
    assert_one_line(typed(COMMANDS[name], runs), "read-only", "" if name == "ledger prune" else f"{runs}/")


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("option", ["ro", "full"])
def test_reading_needs_no_writing(mounted: Callable[..., Path], name: str, option: str) -> None:
    runs = mounted("300k", "ro" if option == "ro" else "rw")
    if option == "full":
        (runs.parent / "filler").write_bytes(b"x" * _free(runs))
    done = typed(READING[name], runs)
    assert (done.returncode, "saferthoughts: " in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("name", ["check", "select", "ledger export"])
def test_full_disk_is_one_line_and_the_same_command_goes_on(mounted: Callable[..., Path], name: str) -> None:
    runs = mounted("300k")
    filler = runs.parent / "filler"
    filler.write_bytes(b"x" * _free(runs))
    before = state_of(runs)
    assert_one_line(typed(COMMANDS[name], runs), "he disk is full", f"{runs}/")
    assert {path: content for path, content in state_of(runs).items() if path in before} == before
    assert not list(runs.rglob("*.tmp"))
    filler.unlink()
    done = typed(COMMANDS[name], runs)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["check", "release build"])
def test_limit_on_the_size_of_files_is_one_line(run: RunFolder, tmp_path: Path, name: str) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(run.path.parent, runs)
    assert_one_line(typed(COMMANDS[name], runs, largest=1024), "ulimit -f", f"{runs}/")
    assert not list(runs.rglob("*.tmp"))


@pytest.mark.parametrize(("name", "words"), [("ledger prune", "ledger.sqlite"), ("ledger export", "answers.jsonl")])
def test_limit_on_the_size_of_files_is_not_taken_for_a_damaged_ledger(
    run: RunFolder, tmp_path: Path, name: str, words: str
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(run.path.parent, runs)
    done = typed(COMMANDS[name], runs, largest=1024)
    assert_one_line(done, words, "ulimit -f")
    assert "damaged" not in done.stderr
    assert typed(COMMANDS[name], runs).returncode == 0


@pytest.mark.parametrize("name", ["prompts", "ledger show", "serve"])
def test_a_file_in_the_place_of_runs_is_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a-file"
    file.write_text("mine")
    words = {**COMMANDS, **READING, "serve": ["serve", "--port", "0"]}[name]
    assert_one_line(typed(words, file), str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_an_error_of_ours_keeps_its_traceback(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import curation.sql.query as q\ndef broken(*_): 1 / 0\nq.query = broken\n"
    )
    words = [sys.executable, "-m", "saferthoughts", "--runs", str(run.path.parent), *READING["sql"]]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Please report it" in done.stderr.splitlines()[-1]


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.ESTALE, "file server"),
        (errno.EINTR, "interrupted"),
        (errno.ENOTDIR, "a file and not a folder"),
        (errno.EISDIR, "a folder and not a file"),
        (errno.EACCES, "no permission"),
        (errno.EDQUOT, "quota"),
        (errno.EPROTO, "Protocol error"),
    ],
)
def test_every_error_of_the_system_has_a_line(number: int, expected: str) -> None:
    line = refusal_of(OSError(number, os.strerror(number), "/somewhere/file"))
    assert line is not None
    assert line.startswith("/somewhere/file: ")
    assert expected in line
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = OSError(number, os.strerror(number), "/somewhere/file")
    assert refusal_of(wrapped) == line
    assert refusal_of(RuntimeError("a fault of ours")) is None


def test_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "link").read_text()
    assert f"a link to {tmp_path / 'gone'}, which is not there" in str(refusal_of(caught.value))


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        "\x00\x01",
        "[" * 100_000,
        "{}",
        '{"format": 2}',
        '{"format": 2, "name": "small", "created": "x"}',
        '{"format": 2, "name": "small", "created": "x", "stages": []}',
        '{"format": 2, "name": "small", "created": "x", "stages": {"check": 5}}',
        '{"format": 2, "name": "small", "created": "x", "stages": {"check": {}}}',
        '{"format": 2, "name": "small", "created": "x", "stages": {"check": {"finished": "x", "counts": 5}}}',
    ],
)
def test_broken_manifest_names_the_commands_that_make_it_anew(run: RunFolder, tmp_path: Path, manifest: str) -> None:
    copied = tmp_path / "small"
    shutil.copytree(run.path, copied)
    (copied / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=r"manifest\.json .*saferthoughts prompts small --config .*run\.yaml, then"):
        RunFolder.open(tmp_path, "small")


def test_manifest_is_made_anew_as_its_error_says(run: RunFolder, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(run.path.parent, runs)
    before = run.manifest()["stages"]
    (runs / "small" / "manifest.json").write_text("{")
    assert_one_line(typed(["report", "small"], runs), "manifest.json is not a run's manifest", "Delete it")
    (runs / "small" / "manifest.json").unlink()
    assert_one_line(typed(["report", "small"], runs), "manifest.json is not there. Make it anew: ")
    config = str(runs / "small" / "run.yaml")
    assert typed(["prompts", "small", "--config", config], runs).returncode == 0
    done = typed(["run", "small", "--until", "check"], runs)
    assert "generate: 3 of 3 responses, 0 asked for now" in done.stdout
    after = RunFolder.open(runs, "small").manifest()["stages"]
    assert after["check"]["outputs"] == before["check"]["outputs"]


def test_lacking_stage_is_named_with_its_command(run: RunFolder, tmp_path: Path) -> None:
    copied = tmp_path / "small"
    shutil.copytree(run.path, copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["stages"]["judge"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert_one_line(typed(["release", "build", "small"], tmp_path), "Run first: saferthoughts judge small")


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "\x00", "seed: much\n", "[" * 5_000])
def test_broken_run_yaml_is_one_line(run: RunFolder, tmp_path: Path, content: str) -> None:
    copied = tmp_path / "small"
    shutil.copytree(run.path, copied)
    (copied / "run.yaml").write_text(content)
    with pytest.raises(UserError, match=r"run\.yaml.* saferthoughts prompts small"):
        load_config(RunFolder.open(tmp_path, "small"))


@pytest.mark.parametrize("how", ["empty", "garbage", "cut", "pages"])
@pytest.mark.parametrize("name", ["responses", "verdicts"])
def test_broken_table_names_its_command(run: RunFolder, tmp_path: Path, name: str, how: str) -> None:
    copied = tmp_path / "small"
    shutil.copytree(run.path, copied)
    table = copied / f"{name}.parquet"
    whole = table.read_bytes()
    middle = len(whole) // 4
    broken = {
        "empty": b"",
        "garbage": os.urandom(len(whole)),
        "cut": whole[: len(whole) // 2],
        # The footer is whole, and what it points to is not.
        "pages": whole[:4] + b"\xff" * middle + whole[4 + middle :],
    }
    table.write_bytes(broken[how])
    stage = {"responses": "generate", "verdicts": "judge"}[name]
    expected = rf"{name}\.parquet .* Delete it and make it again: saferthoughts {stage} small"
    with pytest.raises(UserError, match=expected):
        check(RunFolder.open(tmp_path, "small"))
