"""Each extra, alone in an environment that holds what it asks for and nothing else, does its stage's smallest job.

A package that is used and not asked for fails here as it would for whoever installs that extra alone: the suite's own
environment has everything. `make test-extras` does the same with environments that pip makes.
"""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from pipelines.doctor import NEEDS, packages
from tests.cards.keys import write_key
from tests.docs.pages import with_sources
from tests.installing import PROJECT, ROOT, closure, command, environment, installed
from tests.training.conftest import tiny_student as tiny_student

NEW = ("prompts", "new", "--harmful", "2", "--benign", "1", "--variant", "improved", "--teacher", "rehearsal")
# In a folder with a checked run `small`, its release, and the checkpoint `tiny`.
JOBS: dict[str, list[tuple[str, ...]]] = {
    "": [NEW, ("check", "small"), ("sql", "small", "select count(*) from responses")],
    "generate": [NEW, ("generate", "new"), ("judge", "new")],
    "curate": [("report", "small"), ("duplicates", "small")],
    "release": [("release", "build", "small"), ("release", "verify", "runs/small/release")],
    "sign": [("release", "sign", "release", "--key", "key.pem"), ("release", "verify", "release")],
    "train": [("train", "recipe.yaml", "--dataset", "release", "--student", "tiny", "--check")],
    "eval": [("eval", name, "--task", "refusal", "--limit", "1") for name in ("tiny", "rehearsal")],
}
# Commands one after the other in one process, so that it loads its libraries once.
DONE = "(done)"
IN_TURN = f"""
import json, sys
from saferthoughts.cli.main import run_command
if __name__ == "__main__":
    for words in json.loads(sys.argv.pop()):
        sys.argv[:] = ["saferthoughts", *words]
        if code := run_command():
            sys.exit(code)
        print({DONE!r})
"""
REFUSING = """
import json, sys
from saferthoughts.cli.main import run_command
for sys.argv[:] in json.loads(sys.argv.pop()):
    print(run_command())
"""
# What a stage says of itself where its extra is missing.
STAGES = {
    "generate": ("generate", "small"),
    "curate": ("duplicates", "small"),
    "release": ("release", "build", "small"),
    "sign": JOBS["sign"][0],
    "train": JOBS["train"][0],
    "eval": JOBS["eval"][0],
    "serve": ("serve", "--port", "0"),
}
# The docs extra alone builds the site in tests/docs/test_site.py.
ENVIRONMENTS = [*JOBS, "review", "serve"]
# An environment of all extras of the demo is worth its minutes only where pip makes it.
DEMO = ("run", *NEW[1:])


@pytest.fixture(scope="module")
def checked(released_once: Path, tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Path:
    """A folder with what the jobs start from."""
    folder = tmp_path_factory.mktemp("checked")
    shutil.copytree(released_once, folder / "runs" / "small")
    shutil.move(folder / "runs" / "small" / "release", folder / "release")
    shutil.copytree(tiny_student, folder / "tiny")
    write_key(folder / "key")
    recipe = yaml.safe_load((ROOT / "training" / "recipes" / "smollm2-135m" / "cpu.yaml").read_text(encoding="utf-8"))
    recipe["mixture"] = {"short": 4, "benign": 2}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


@pytest.fixture
def home(checked: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checked, tmp_path / "home")


def serves(python: Path, home: Path) -> None:
    """Start the service, and ask it how it is.

    Raises:
        AssertionError: it ends, or does not answer.
    """
    words = [str(python), "-m", "saferthoughts", "serve", "--port", "0"]
    with subprocess.Popen(
        words, cwd=home, env=environment(python), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        try:
            printed = server.stdout.readline()
            address = re.search(r"http://[\d.]+:\d+", printed)
            assert address, printed + server.stdout.read()
            deadline = time.monotonic() + 300
            while True:
                try:
                    with urlopen(f"{address[0]}/health", timeout=120) as answer:
                        assert answer.status == 200
                    break
                except URLError:
                    assert server.poll() is None, server.stdout.read()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        finally:
            server.terminate()


def does_its_job(extra: str, python: Path, home: Path) -> int:
    """Do an extra's job in an environment; gives how many things it did.

    Raises:
        AssertionError: it fails.
    """
    jobs = JOBS.get(extra, [DEMO] if extra == "demo" else [])
    if extra == "serve":
        serves(python, home)
    elif extra == "docs":
        words = [str(python), "-m", "zensical", "build", "--strict"]
        (home / "sources").mkdir()
        folder = with_sources(home / "sources")
        done = subprocess.run(words, cwd=folder, env=environment(python), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif extra == "review":
        # Its server is another environment; as far as its client gets without one.
        nowhere = {"ARGILLA_API_URL": "http://127.0.0.1:9", "ARGILLA_API_KEY": "none"}
        done = command(python, home, ("review", "push", "small"), **nowhere)
        assert "Argilla at http://127.0.0.1:9 cannot be reached" in done.stderr
        done = subprocess.run([str(python), "-c", "import krippendorff"], check=False, env=environment(python))
        assert done.returncode == 0
    done = subprocess.run(
        [str(python), "-c", IN_TURN, json.dumps(jobs)],
        cwd=home, env=environment(python), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.count(DONE) == len(jobs)
    return len(jobs) + (extra in ("serve", "docs", "review"))


@pytest.mark.parametrize("extra", ENVIRONMENTS)
def test_extra_alone_does_its_job(extra: str, home: Path, tmp_path: Path) -> None:
    try:
        python = installed(tmp_path / "environment", extra)
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed here")
    assert does_its_job(extra, python, home) >= 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("extra", [*ENVIRONMENTS, "docs", "demo", "ray"])
def test_extra_that_pip_installs_does_its_job(extra: str, home: Path, tmp_path: Path) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "environment")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*pip, "-e", f".[{extra}]" if extra else "."], cwd=ROOT, check=True, env=environment(python))
    if extra == "ray":
        assert command(python, home, NEW).returncode == 0
        done = command(python, home, ("generate", "new", "--engine", "ray"))
        assert done.returncode == 0, done.stderr
    assert does_its_job(extra, python, home) >= (extra != "ray")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without any extra."""
    return installed(tmp_path_factory.mktemp("bare") / "environment", "")


@pytest.fixture(scope="module")
def examined(bare: Path, checked: Path) -> str:
    """What doctor says there."""
    return command(bare, checked, ("doctor",), COLUMNS="1000").stdout


def test_stage_without_its_extra_names_a_package_that_doctor_has_an_extra_for(
    bare: Path, examined: str, home: Path
) -> None:
    orders = json.dumps([["", *words] for words in STAGES.values()])
    done = subprocess.run(
        [str(bare), "-c", REFUSING, orders],
        cwd=home, env=environment(bare), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["2"] * len(STAGES), done.stderr
    assert "Traceback" not in done.stderr
    # One line a stage, whatever else it said before.
    found = re.findall(r"The package '([\w.]+)' is not installed", done.stderr)
    assert len(found) == len(STAGES), done.stderr
    for extra, package in zip(STAGES, found, strict=True):
        wanted = package.split(".")[0].replace("_", "-")
        [line] = [line for line in examined.splitlines() if f"'.[{extra}]'" in line]
        assert any(name.startswith(wanted) for name in re.findall(r"[\w-]+", line.split("missing")[1])), extra


def test_demo_asks_for_what_its_stages_ask_for() -> None:
    asked = closure("demo")
    assert [
        extra for extra in ("generate", "curate", "release", "sign", "train", "eval") if closure(extra) - asked
    ] == []


def test_doctor_knows_every_extra_but_those_that_no_stage_needs() -> None:
    assert set(NEEDS.values()) == {"", *PROJECT["optional-dependencies"]} - {"demo", "docs", "gguf", "rl", "vllm"}
    assert {"torch", "inspect-ai", "aiolimiter"} <= set(packages("eval"))
    assert PROJECT["name"] not in packages("dev")
