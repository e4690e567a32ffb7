"""Requests from Ray workers, on clusters of real nodes: the rows of the local engine, and a line instead of a wait."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.overlap.cluster import workers
from curation.overlap.contamination import EvalSet, search_texts
from curation.overlap.duplicates import near_duplicates
from pipelines.errors import Interrupted, UserError
from pipelines.generate.plan import plan, prompts_of
from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.runner.options import DEFAULTS, Engine, RequestOptions
from pipelines.runner.ray_cluster import connected
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.config import load_config
from pipelines.settings.options import Options
from pipelines.teachers.ledger import Ledger
from tests.commands import command

pytestmark = [
    # Not by importing it: Ray reads its settings when it is imported, and `cluster` makes them.
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[ray]'"),
    # Ray forks while its threads run, leaves files and sockets to the collector, and tells of its own renamings.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning:ray\..*"),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
]

STORE = 80 * 1024**2
# As it comes, Ray takes 20 seconds to see that a node is lost.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
# Somebody else on the cluster, who takes a CPU and keeps it.
TAKER = """
import ray, sys, time
ray.init(sys.argv[1])
@ray.remote
class Taker:
    def __init__(self):
        self.taken = True
    def told(self):
        return "taken"
taker = Taker.options(num_cpus=1).remote()
print(ray.get(taker.told.remote()), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that has no CPU to give, as heads often have; tests add nodes. Strangers are kept out."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        from ray.cluster_utils import Cluster

        # Ray gives a node 30 seconds to come up, which no variable changes and a busy machine needs longer for.
        clock = SimpleNamespace(time=time.time, sleep=time.sleep, monotonic=lambda: time.monotonic() / 20)
        patch.setattr("ray._private.node.time", clock)
        head: dict[str, Any] = {"num_cpus": 0, "object_store_memory": STORE, "_system_config": QUICK}
        head |= {"include_dashboard": False, "include_log_monitor": False}
        handler = signal.getsignal(signal.SIGTERM)
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield made
        finally:
            made.shutdown()
            signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def nodes() -> list[Any]:
    """The node that tests share."""
    return []


@pytest.fixture
def worker(cluster: Any, nodes: list[Any]) -> Any:
    """A node with one CPU: each takes seconds of computing time to come up, so tests leave it to those after them."""
    if not nodes or nodes[0] not in cluster.list_all_nodes():
        nodes[:] = [cluster.add_node(num_cpus=1, object_store_memory=STORE)]
    return nodes[0]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a cluster that is busy with other tests take its time; commands too, which have it from the environment."""
    for name in ("_PATIENCE_S", "_CONNECT_S", "_CPU_S"):
        monkeypatch.setattr(f"pipelines.runner.ray_cluster.{name}", 300.0)
    monkeypatch.setenv("SAFERTHOUGHTS_RAY_TIMEOUT", "300")


@contextmanager
def when_answered(run: RunFolder, count: int, act: Callable[[], object]) -> Iterator[None]:
    """Act once, while the block runs, as soon as the run has that many answers."""
    ended = threading.Event()

    def watch() -> None:
        ledger = Ledger(run.path / "ledger.sqlite")
        try:
            while ledger.totals().answers < count:
                assert not ended.wait(0.1), "the run ended before"
        finally:
            ledger.close()
        act()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            ended.set()
            watching.result()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal server is taken for one of another machine, which workers of all nodes ask."""
    monkeypatch.setattr("pipelines.teachers.client.is_loopback", lambda host: False)


def at(url: str, **options: Any) -> dict[str, Any]:
    return {"base_url": url, "model": "rehearsal-r1", "api_key_env": "RAY_TEST_KEY", **options}


def locally(run: RunFolder) -> str:
    """Generate with the local engine, in a process of its own: a test's cluster lives in this one, with threads and a
    handler of signals that forked steps must not inherit."""
    done = command(["--runs", str(run.path.parent), "generate", run.name])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nodes_without_the_module_or_a_cpu_are_told(cluster: Any, tmp_path: Path) -> None:
    # What stands in for a node without the package is a node where importing it fails in the same way.
    text = "raise ModuleNotFoundError(\"No module named 'aiolimiter'\", name='aiolimiter')\n"
    (tmp_path / "aiolimiter.py").write_text(text, encoding="utf-8")
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars={"PYTHONPATH": str(tmp_path)})
    output = refused(cluster.address, tmp_path)
    cluster.remove_node(node)
    assert output.count("lacks the module 'aiolimiter'") == 1
    # The head's.
    assert output.count("has no CPU for Ray") == 1


@pytest.mark.usefixtures("elsewhere")
def test_a_run_moves_to_two_nodes_and_back_with_the_same_rows(
    cluster: Any, worker: Any, new_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The nodes do not have the key: it must come with the request, and must not stay in what Ray writes.
    key = f"sk-{secrets.token_hex(16)}"
    with rehearsing() as url:
        monkeypatch.setenv("RAY_TEST_KEY", key)
        local = new_run(harmful=4, benign=2, **at(url))
        locally(local)
        planned = {ask.key for ask in plan(load_config(local), prompts_of(local)) if ask.key}
        moved = RunFolder(shutil.copytree(local.path, tmp_path / "moved" / local.name))
        ledger = Ledger(moved.path / "ledger.sqlite")
        rows = [key for key in ledger.every_key() if key in planned]
        assert ledger.drop(rows[::2]) == 11
        ledger.close()
        assert generate(moved, RequestOptions(engine=Engine("ray", cluster.address))).asked == 11
        logs = [path for path in Path(worker.get_session_dir_path()).rglob("*") if path.is_file()]
        assert logs
        assert not [path for path in logs if key.encode() in path.read_bytes()]
        tables = [pq.read_table(run.table_path("responses")).drop_columns(["latency_s"]) for run in (local, moved)]
        on_ray = moved.table_path("responses").read_bytes()
        assert "0 asked for now" in locally(moved)
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == 26
    # From one ledger, the engines write the same bytes.
    assert moved.table_path("responses").read_bytes() == on_ray


@pytest.mark.usefixtures("worker")
def test_ctrl_c_stops_a_run_on_ray_and_keeps_its_answers(
    cluster: Any, new_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TEST_KEY", "any")
    with rehearsing(RehearsalSettings(delay=0.3)) as url:
        run = new_run(harmful=40, benign=40, **at(url, sets=("teachers.flags.in_flight=2",)))
        with (
            when_answered(run, 4, lambda: os.kill(os.getpid(), signal.SIGINT)),
            pytest.raises(Interrupted, match=f"go on with: saferthoughts generate {run.name}"),
        ):
            generate(run, RequestOptions(engine=Engine("ray", cluster.address)))
    assert not run.table_path("responses").exists()


@pytest.mark.usefixtures("worker")
def test_a_worker_whose_cpus_are_all_taken_is_told(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runner.ray_cluster._CPU_S", 3.0)
    words = [sys.executable, "-c", TAKER, cluster.address]
    with subprocess.Popen(words, stdout=-1, stderr=-3, text=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "taken\n"
            assert "gave no CPU within" in refused(cluster.address, tmp_path)
        finally:
            other.kill()


@pytest.mark.usefixtures("elsewhere")
def test_a_node_lost_in_the_middle_is_left_out_and_the_last_one_ends_the_run(
    cluster: Any, worker: Any, new_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TEST_KEY", "any")
    ray = RequestOptions(engine=Engine("ray", cluster.address))
    other = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    with rehearsing(RehearsalSettings(delay=0.3)) as url:
        run = new_run(harmful=10, benign=0, **at(url, sets=("teachers.flags.in_flight=4",)))
        with when_answered(run, 10, lambda: cluster.remove_node(other, allow_graceful=False)):
            done = generate(run, ray)
        assert (done.planned, done.failed) == (60, 0)
        written = run.table_path("responses").read_bytes()
        # It would take most of a minute, and ends as soon as the loss is noticed; 60 answers are there already.
        run = new_run(harmful=50, benign=0, **at(url, sets=("teachers.flags.in_flight=2",)))
        with (
            when_answered(run, 70, lambda: cluster.remove_node(worker, allow_graceful=False)),
            pytest.raises(UserError, match="Every Ray worker that made requests is gone"),
        ):
            generate(run, ray)
    assert Ledger(run.path / "ledger.sqlite").totals().answers >= 70
    assert run.table_path("responses").read_bytes() == written
    assert [path for path in run.path.iterdir() if path.is_dir()] == []


def test_judging_is_done_by_ray_workers_as_well(cluster: Any, worker: Any, judged: RunFolder) -> None:
    alone = RunFolder(shutil.copytree(judged.path, judged.path.parent / "alone"))
    for run, options in ((alone, DEFAULTS), (judged, RequestOptions(engine=Engine("ray", cluster.address)))):
        change(run, Options(judges=("rehearsal-judge",)))
        judge(run, options)
    assert judged.read("verdicts").equals(alone.read("verdicts"))


def test_two_workers_find_the_near_duplicates_and_overlaps_that_one_machine_finds(
    cluster: Any, worker: Any, tmp_path: Path
) -> None:
    """In pieces, so that copies lie in different ones."""
    drawn = Random(1)
    texts = [" ".join(drawn.choices([f"word{number}" for number in range(500)], k=40)) for _ in range(60)]
    pieces = [pa.array([*texts[at : at + 25], texts[at].replace("word1", "other")]) for at in (0, 20, 40, 10, 30)]
    items = EvalSet("own", ("a", "b"), (texts[3], texts[45]))
    alone = list(near_duplicates(pieces, 5, 0.8))
    found = [search_texts(items, piece) for piece in pieces]
    assert (len(alone) > 20, sum(map(len, found)) > 2) == (True, True)
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    with workers(Engine("ray", cluster.address), tmp_path) as helpers:
        assert helpers is not None
        assert list(near_duplicates(pieces, 5, 0.8, helpers)) == alone
        assert list(helpers.map(search_texts, ((items, piece) for piece in pieces))) == found
        assert list(near_duplicates([], 5, 0.8, helpers)) == []
        with pytest.raises(UserError, match="A worker of the Ray cluster failed"):
            list(helpers.map(search_texts, [("no set", pieces[0])]))
    cluster.remove_node(second)


def refused(address: str, folder: Path) -> str:
    """What connecting says in refusing."""
    with pytest.raises(UserError) as error, connected(address, folder):
        pass
    return str(error.value)


class _Website(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:1", "Nobody answers at"), ("ray://head:10001", "must be a node"), ("head", "takes HOST:PORT or auto")],
)
def test_an_address_that_cannot_be_is_told(address: str, expected: str, tmp_path: Path) -> None:
    assert expected in refused(address, tmp_path)


def test_an_address_where_something_else_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runner.ray_cluster._CONNECT_S", 5.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Website) as website:
        threading.Thread(target=website.serve_forever, daemon=True).start()
        assert "it is no Ray cluster" in refused(f"127.0.0.1:{website.server_port}", tmp_path)
        website.shutdown()


def test_an_engine_that_is_none_is_told() -> None:
    with pytest.raises(UserError, match=r"Unknown engine 'rai'\. Did you mean 'ray'"):
        Engine("rai")
    with pytest.raises(UserError, match="--ray-address auto goes with --engine ray"):
        Engine("local", "auto")


def processes(mark: str) -> list[str]:
    """Command lines of the processes whose environment has the given mark, by /proc."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"RAY_TEST_MARK={mark}".encode() in environ.read_bytes():
                found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


def at_work(mark: str) -> list[str]:
    """Those processes less two helpers of Ray's, which look for their dead cluster for a minute before they end."""
    return [line for line in processes(mark) if not line.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))]


def reap_orphans() -> None:
    """Wait for what has ended and nobody waits for, as init does: a Ray driver in this process gets the orphans of the
    processes it started, and a Ray worker takes its raylet for alive as long as that is a zombie."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_a_cluster_of_our_own_ends_with_the_command_even_by_kill_9(new_run: Callable[..., RunFolder]) -> None:
    mark = secrets.token_hex(8)
    with rehearsing(RehearsalSettings(delay=0.5)) as url:
        run = new_run(harmful=20, benign=10, base_url=url, model="rehearsal-r1", sets=("teachers.flags.in_flight=2",))
        words = [sys.executable, "-m", "saferthoughts", "--runs", str(run.path.parent), "generate", run.name]
        environment = {**os.environ, "RAY_TEST_MARK": mark}
        with subprocess.Popen([*words, "--engine", "ray"], env=environment, stderr=-3, stdout=-3) as process:
            ledger = Ledger(run.path / "ledger.sqlite")
            deadline = time.monotonic() + 500
            while ledger.totals().answers < 4:
                assert process.poll() is None
                assert time.monotonic() < deadline, "no answers arrived"
                time.sleep(0.1)
            ledger.close()
            assert any("raylet" in line for line in processes(mark))
            process.kill()
        deadline = time.monotonic() + 300
        while at_work(mark) and time.monotonic() < deadline:
            reap_orphans()
            time.sleep(0.2)
    assert at_work(mark) == []
