"""Fixtures that areas share: a small run, made by the rehearsal teacher once a session, copied for each test.

The suite runs in four processes side by side (`make test`); `pytest` alone runs all of it, or a part, in one.
"""

import gc
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from filelock import FileLock
from hypothesis import HealthCheck, settings

# Nothing in the suite may reach for the Hub; set before any library reads it.
os.environ["HF_HUB_OFFLINE"] = "1"
# In bfloat16, which some processors have, other tokens are the likeliest and other losses the highest. torch looks for
# it among the instructions that oneDNN may use.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
# A shell that starts the suite in the background has it ignore Ctrl-C, and nohup SIGHUP, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Each process has its share of the cores: with threads for all of them they would wait for each other.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

from pipelines.prompts.stage import start
from pipelines.runs import RunFolder
from pipelines.settings.options import Options, configured

# Until all tests are found (`pytest_runtest_logstart`), there is little garbage and much to look through.
gc.disable()
# What the product thaws after each generation and evaluation is all that is frozen: a second a collection from then on.
_freeze, _unfreeze, gc.freeze, gc.unfreeze = gc.freeze, gc.unfreeze, lambda: None, lambda: None
# The command line's parser is the same for every command that a test runs in this process.
typer.testing._get_command = cache(typer.testing._get_command)  # type: ignore[attr-defined]
# The processes of tests read what the first of them compiled, whatever the shell says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A machine that is busy with other tests is no fault of the code's.
_PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples each time, so that a failure is the change's. `HYPOTHESIS_PROFILE=search pytest` looks for new ones.
settings.register_profile("suite", derandomize=True, max_examples=50, **_PATIENT)
settings.register_profile("search", max_examples=500, **_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

SMALL = Options(harmful=12, benign=6, seed=5, teacher="rehearsal")
# In `make test`, the files whose names begin so, or else of one file, go to one process with all of one group, since
# they share what takes long to make. What takes longest begins first, so that all processes end together.
TOGETHER = {
    "tests/service/": "service",
    "tests/training/test_study": "studies",
    "tests/training/test_sweep.py": "studies",
    "tests/training/": "models",
    "tests/eval/test_going_on.py": "models",
    "tests/eval/test_rescore.py": "models",
    "tests/cards/test_pu": "hub",
    "tests/cards/test_signing.py": "hub",
    "tests/cards/test_proof_of_hub.py": "hub",
    "tests/review/": "review",
}
FIRST = (
    *TOGETHER,
    "tests/test_extras.py",
    "tests/test_real_server.py",
    "tests/docs/test_guides.py",
    "tests/pipelines/test_ray.py",
    "tests/eval/",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    # What `-n` alone asks for; `make test-extras` asks for something else.
    if config.option.dist != "load":
        return None

    class ByFolder(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return next((group for begins, group in TOGETHER.items() if file.startswith(begins)), file)

    config.option.loadscopereorder = False
    return ByFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(
            key=lambda item: next((at for at, name in enumerate(FIRST) if item.nodeid.startswith(name)), len(FIRST))
        )


_spared = 0


def pytest_unconfigure() -> None:
    # What stays frozen to the end is reported as leaked by the libraries that made it.
    _unfreeze()


def pytest_runtest_logstart() -> None:
    """Spare collections of garbage what was loaded since, a quarter of the time of evaluations and trainings."""
    global _spared
    if len(sys.modules) > _spared + 100:
        _spared = len(sys.modules)
        with warnings.catch_warnings():
            # What the test before left to the collector is not this one's fault.
            warnings.simplefilter("ignore")
            gc.collect()
        _freeze()
        gc.enable()


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A folder by its name, filled by whichever of xdist's processes wants it first; no test may change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, fill: Callable[[Path], None]) -> Path:
        folder, whole = shared / f"once-{name}", shared / f"once-{name}.whole"
        with FileLock(shared / f"once-{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def judged_once(once: Once) -> Path:
    def fill(folder: Path) -> None:
        from pipelines.generate.stage import generate
        from pipelines.judges.stage import judge

        run = start(folder, "small", configured(SMALL)).run
        generate(run)
        judge(run)

    return once("judged", fill) / "small"


@pytest.fixture(scope="session")
def released_once(judged_once: Path, once: Once) -> Path:
    """The run repaired, checked and released."""

    def fill(folder: Path) -> None:
        from cards.release.build import build_release
        from curation.quality.checks import check
        from pipelines.repairs.stage import repair

        run = RunFolder(Path(shutil.copytree(judged_once, folder / "small")))
        repair(run)
        check(run)
        build_release(run)

    return once("released", fill) / "small"


@pytest.fixture
def judged(judged_once: Path, tmp_path: Path) -> RunFolder:
    """A run that was generated and judged, the test's own to change."""
    shutil.copytree(judged_once, tmp_path / "runs" / "small")
    return RunFolder.open(tmp_path / "runs", "small")


@pytest.fixture
def released(released_once: Path, tmp_path: Path) -> RunFolder:
    """A run that was repaired, checked and released, the test's own to change; not beside `judged`."""
    shutil.copytree(released_once, tmp_path / "runs" / "small")
    return RunFolder.open(tmp_path / "runs", "small")


@contextmanager
def changing_tables() -> Iterator[None]:
    """Let a run's tables be changed by hand, which stages refuse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.freshness.stale", lambda run, *tables: [])
        yield


@pytest.fixture(autouse=True)
def tables_by_hand(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let tests change a run's tables by hand; tests/curation/test_freshness.py has what stages say to that."""
    with nullcontext() if "test_freshness" in request.node.nodeid else changing_tables():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once a module; skips where it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Start a run with the given options: by the rehearsal teacher where they name none, an endpoint called "flags"."""

    def begin(**options: object) -> RunFolder:
        options = {**({"name": "flags"} if "base_url" in options else {"teacher": "rehearsal"}), **options}
        return start(tmp_path / "runs", "new", configured(Options(**options))).run  # type: ignore[arg-type]

    return begin
