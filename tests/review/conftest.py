"""A real Argilla server for the session, and a run whose rows can be sent to it."""

import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from curation.quality.checks import check
from curation.review.home import connect
from curation.review.serve import serving
from pipelines.errors import UserError
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from tests.conftest import Once

pytest.importorskip("argilla", reason="the review extra is not installed")


@dataclass(frozen=True)
class Server:
    """A running server with its accounts, those that tests make (`guests`), and plain HTTP to it as one of them."""

    runs: Path
    url: str
    process: int
    guests: list[dict[str, str]] = field(default_factory=list)

    def account(self, name: str) -> dict[str, str]:
        found = json.loads((self.runs / ".argilla" / "credentials.json").read_text())["accounts"]
        return next(account for account in (*found, *self.guests) if account["username"] == name)

    def ask(self, path: str, name: str = "owner", body: Any = None, method: str | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Argilla-Api-Key": self.account(name)["api_key"], "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read() or b"null")

    def client(self) -> Any:
        """One for all tests: Argilla's client never closes its connections."""
        return _client(self.runs, self.process)

    def records(self, dataset: str, name: str = "owner") -> list[dict[str, Any]]:
        # A dataset's name holds the run's id: RUN-1a2b3c4d, RUN-1a2b3c4d-overlap.
        items = self.ask("me/datasets", name)["items"]
        names = {item["name"]: re.sub(r"-[0-9a-f]{8}(?=-|$)", "", item["name"]) for item in items}
        (found,) = [item for item in items if dataset in (item["name"], names[item["name"]])]
        return list(self.ask(f"datasets/{found['id']}/records?limit=1000&include=responses", "owner")["items"])

    def vote(
        self, record: dict[str, Any], name: str, safe: str = "yes", patterns: tuple[str, ...] | None = ("none",)
    ) -> None:
        values: dict[str, Any] = {"safe": {"value": safe}}
        if patterns is not None:
            values["patterns"] = {"value": list(patterns)}
        self.ask(f"records/{record['id']}/responses", name, {"values": values, "status": "submitted"}, "POST")


@cache
def _client(runs: Path, process: int) -> Any:
    return connect(runs)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    runs = tmp_path_factory.mktemp("reviewed")
    try:
        with serving(runs / ".argilla", 0, 2) as running:
            yield Server(runs, running.url, running.process)
    except UserError as error:
        if "cannot be installed" not in str(error):
            raise
        pytest.skip(f"argilla-server's environment cannot be made: {error}")


@pytest.fixture(scope="session")
def checked_once(judged_once: Path, once: Once) -> Path:
    """The small run, repaired and checked."""

    def fill(folder: Path) -> None:
        run = RunFolder(shutil.copytree(judged_once, folder / "small"))
        repair(run)
        check(run)

    return once("checked", fill) / "small"


@pytest.fixture
def checked(checked_once: Path, tmp_path: Path) -> RunFolder:
    """A run that is generated, judged, repaired and checked, the test's own to change."""
    return RunFolder(shutil.copytree(checked_once, tmp_path / "runs" / "small"))


@pytest.fixture
def named(checked: RunFolder, request: pytest.FixtureRequest) -> Callable[[], RunFolder]:
    """The run under a name of the test's own, since all tests share one server."""

    def renamed() -> RunFolder:
        name = request.node.name.split("[")[0].removeprefix("test_")[:50].replace("_", "-")
        checked.path.rename(checked.path.with_name(name))
        return RunFolder(checked.path.with_name(name))

    return renamed


def refused(call: Callable[[], Any]) -> int:
    """The HTTP status of a call that is refused."""
    with pytest.raises(urllib.error.HTTPError) as error:
        call()
    return int(error.value.code)
