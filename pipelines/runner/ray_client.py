"""Requests made by workers of a Ray cluster: connections, streams and parsing on its nodes, all decisions at home.

Limits, attempts, budget and ledger stay with the process that was started, so SQLite never meets a network file system
and a run can go back and forth between the engines. A worker that is lost loses what it was asking; that is asked again
by another. Keys of teachers travel as an argument of a call; in a runtime environment they would end up in Ray's logs
and dashboard.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.runner.options import Engine
from pipelines.runner.ray_cluster import connected, on_node
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import TeacherClient
from pipelines.teachers.replies import ReplyFailure
from pipelines.teachers.reply import Reply
from pipelines.teachers.transport import ConnectionFailed

# Requests that one worker may have under way; what a teacher may have is its entry's affair.
_MOST_AT_ONCE = 8192


class RequestWorker:
    """Makes requests, in a worker of Ray's."""

    def __init__(self) -> None:
        self._clients: dict[str, TeacherClient] = {}

    async def open(self, name: str, entry: str, urls: Sequence[str], key: str) -> None:
        """Be ready to ask a teacher; its entry comes as JSON."""
        self._clients[name] = TeacherClient(name, Teacher.model_validate_json(entry), urls, key)

    async def exchange(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """One request: the fields of its `Reply`, or what its failure is made of, under its class's name."""
        try:
            return asdict(await self._clients[name].exchange(request))
        except ConnectionFailed as failure:
            return {"ConnectionFailed": (str(failure), failure.unreachable, failure.kind)}
        except ReplyFailure as failure:
            return {"ReplyFailure": (failure.kind, str(failure), failure.status, failure.wait_s)}


class RayClient(TeacherClient):
    """A teacher's client whose requests are made by workers of a Ray cluster.

    Args:
        workers: Those on nodes that lend a CPU, and at "home" the one on this machine's node, which asks servers of
            this machine.
        name: The teacher's name.
        teacher: Its entry.
        base_urls: Where it answers.
    """

    def __init__(self, workers: "dict[str, Any]", name: str, teacher: Teacher, base_urls: Sequence[str]) -> None:
        super().__init__(name, teacher, base_urls)
        others = {node: worker for node, worker in workers.items() if node != "home"}
        self._workers = others if self._remote else {"home": workers["home"]}
        self._under_way = dict.fromkeys(self._workers, 0)
        self._urls = list(base_urls)

    async def __aenter__(self) -> "RayClient":
        for worker in self._workers.values():
            await worker.open.remote(self.name, self.teacher.model_dump_json(), self._urls, self._key)
        return self

    async def exchange(self, request: dict[str, Any]) -> Reply:
        """One request, made by the worker with the fewest under way.

        Raises:
            ReplyFailure: no reply, or the worker is gone.
            UserError: all workers are gone.
        """
        import ray

        if not self._under_way:
            raise UserError("Every Ray worker that made requests is gone.")
        node = min(self._under_way, key=self._under_way.__getitem__)
        self._under_way[node] += 1
        try:
            answer = await self._workers[node].exchange.remote(self.name, request)
        except ray.exceptions.RayActorError as error:
            self._under_way.pop(node, None)
            raise ReplyFailure("retry", f"a Ray worker is gone ({' '.join(str(error).split())[:200]})") from error
        finally:
            if node in self._under_way:
                self._under_way[node] -= 1
        if "ConnectionFailed" in answer:
            raise ConnectionFailed(*answer["ConnectionFailed"])
        if "ReplyFailure" in answer:
            raise ReplyFailure(*answer["ReplyFailure"])
        return Reply(**answer)


@contextmanager
def ray_workers(engine: Engine, folder: Path) -> Iterator[dict[str, Any]]:
    """A worker on each node of the engine's cluster that can make requests, while the block runs.

    Raises:
        UserError: as `connected`.
    """
    with connected(engine.ray_address, folder) as nodes:
        import ray

        kind: Any = ray.remote(RequestWorker)

        def on(node: str, cpus: int) -> Any:
            return kind.options(
                num_cpus=cpus, max_concurrency=_MOST_AT_ONCE, scheduling_strategy=on_node(node)
            ).remote()

        # At home a worker needs no CPU of Ray's: heads of clusters often have none to give.
        yield {"home": on(nodes.home, 0), **{node: on(node, 1) for node in nodes.workers}}
