"""What the steps of studies made, kept in a repository on the Hub, where other machines find it by the steps' names.

Reads and writes a private repository of datasets; writes what it brings to where the step itself would have.

    STEP/step.json      how it ended; each step comes in one commit, so that where it is there is all of it
    STEP/step/...       what its folder has: a student, results, tables
    STEP/run/...        the run of a step of data, with its ledger and release

Run it with `saferthoughts study run STUDY --artifacts hub:ORG/NAME`. Checkpoints, logs and locks stay where they are.
"""

import json
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from cards.hub.hub import Hub, address_of, hub_error, repeated
from cards.release_folder import kind_fault
from pipelines.errors import UserError
from pipelines.files import put_in_place, write_json
from saferthoughts.studies.steps import Step, Study
from saferthoughts.studies.work import LOG, Ended

_PREFIX = "hub:"
_ENDED = "step.json"
_LEFT = (_ENDED, LOG, "lock", "step.sh")
# What steps make beside what releases hold. Pickles and programs are neither sent nor taken.
_KINDS = (".safetensors", ".jinja", ".sqlite", ".html", ".eval", ".model")
_LOOK_EVERY_S = 60.0
_ATTEMPTS = 20


class Artifacts:
    """One repository of steps.

    Args:
        text: hub:ORG/NAME; `prepare` makes it, private, where it is not there.
        report: Is called with a line for each that is brought or sent.

    Raises:
        UserError: it is no such address.
    """

    def __init__(self, text: str, study: Study, report: Callable[[str], None]) -> None:
        address = address_of(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else None
        if address is None or address.revision:
            raise UserError(
                f"--artifacts is hub:ORG/NAME, not '{text}'. For a folder that machines share, give --runs."
            )
        self.place, self._study, self._report = text, study, report
        disable_progress_bars()
        self._hub = Hub(address.repo)
        self._names: frozenset[str] = frozenset()
        self._looked = float("-inf")
        self._outgoing: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None
        self._unsent: dict[str, str] = {}

    def prepare(self) -> None:
        """Make the repository where it is not there.

        Raises:
            UserError: the token may not write there.
        """
        self._hub.ask(self._hub.api.whoami)
        create = self._hub.api.create_repo
        self._hub.ask(create, self._hub.repo, repo_type=self._hub.kind, private=True, exist_ok=True)

    def names(self) -> frozenset[str]:
        """The steps that are there; looked up once a minute."""
        if time.monotonic() - self._looked > _LOOK_EVERY_S:
            head = self._hub.head()
            self._names, self._looked = self._names_at(head) if head else frozenset(), time.monotonic()
        return self._names

    def take(self, step: Step, needed: bool) -> Ended | None:
        """A step that is not done here: brought if it is there and needed here; None where it is not there.

        Raises:
            UserError: what arrives is not as it was sent, or of a kind that no step makes.
        """
        if step.name not in self.names():
            return None
        if needed:
            ended = self._brought(step)
            self._report(f"{step.label}: taken from {self.place}")
        else:
            ended = Ended("elsewhere", self.place)
            write_json(step.folder / _ENDED, {"state": ended.state, "reason": ended.reason})
        return ended

    def keep(self, step: Step) -> None:
        """Send what a step made, aside from everything else, if it is not there."""
        if step.name in self.names():
            return
        if self._sender is None:
            self._sender = threading.Thread(target=self._send_all, daemon=True)
            self._sender.start()
        self._outgoing.put(step)

    def close(self) -> list[str]:
        """Wait until all is sent; a line for each step that could not be."""
        if self._sender is not None:
            self._outgoing.put(None)
            self._sender.join()
        return [f"{label} is not kept at {self.place}: {why}" for label, why in self._unsent.items()]

    def _send_all(self) -> None:
        while (step := self._outgoing.get()) is not None:
            try:
                self._send(step)
            except Exception as error:  # noqa: BLE001 - whatever it is, the step is not kept, and the next is sent
                why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                self._unsent[step.label] = " ".join(why.split())
            else:
                self._report(f"{step.label}: kept at {self.place}")

    def _send(self, step: Step) -> None:
        hub = self._hub

        def once() -> None:
            head = self._head()
            if step.name in self._names_at(head):  # another machine was first, or an answer to us was lost
                return
            files = self._files(step)
            additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files]
            hub.api.create_commit(
                hub.repo, additions, commit_message=step.label[:200], repo_type=hub.kind, parent_commit=head
            )

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                repeated(once)
                break
            except Exception as error:
                overtaken = isinstance(error, HfHubHTTPError) and error.response.status_code in (409, 412)
                if not overtaken or attempt == _ATTEMPTS:
                    raise hub_error(error, hub) or error from error

    def _files(self, step: Step) -> Iterator[tuple[str, Path]]:
        """A step's files by their paths in the repository; the record that it is done first."""
        yield f"{step.name}/{_ENDED}", step.folder / _ENDED
        for part, folder in self._parts(step):
            for path in sorted(folder.rglob("*")):
                inner = path.relative_to(folder)
                apart = any(one.startswith((".", "checkpoint-")) for one in inner.parts) or inner.as_posix() in _LEFT
                if path.is_file() and not path.is_symlink() and not apart and _fault(PurePosixPath(inner)) is None:
                    yield f"{step.name}/{part}/{inner.as_posix()}", path

    def _parts(self, step: Step) -> list[tuple[str, Path]]:
        run = [("run", self._study.runs / step.labels["folder"])] if step.kind == "data" else []
        return [*run, ("step", step.folder)]

    def _brought(self, step: Step) -> Ended:
        hub, commit = self._hub, self._head()
        there = hub.tree(commit, step.name)
        if fault := next((f"{name} {why}" for name in there if (why := _fault(PurePosixPath(name)))), None):
            raise UserError(f"{step.label} is not taken from {self.place}: {fault}.")
        # One name for all attempts, so that one that was killed is gone on with.
        partial = step.folder.with_name(f".{step.name}.partial")
        for name, stored in there.items():
            if not (partial / name).is_file() or not stored.is_file(partial / name):
                (partial / name).unlink(missing_ok=True)
                fetch = hub.api.hf_hub_download
                hub.ask(fetch, hub.repo, name, repo_type=hub.kind, revision=commit, local_dir=partial)
        try:
            wrong = [name for name, stored in there.items() if not stored.is_file(partial / name)]
            ended = Ended(**json.loads((partial / step.name / _ENDED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.place} has no whole {step.label}: {' '.join(str(error).split())}") from error
        if wrong or ended.state != "done":
            shutil.rmtree(partial)
            raise UserError(
                f"{step.label} arrived from {self.place} otherwise than it was sent: {wrong[:3]}. Try again."
            )
        for part, folder in self._parts(step):
            for child in sorted((partial / step.name / part).glob("*")):
                folder.mkdir(parents=True, exist_ok=True)
                put_in_place(child, folder / child.name) if child.is_dir() else child.replace(folder / child.name)
        if not step.makes.exists():
            raise UserError(f"{self.place} has {step.label} without {step.makes.name}. Delete {step.name} there.")
        (partial / step.name / _ENDED).replace(step.folder / _ENDED)
        shutil.rmtree(partial)
        return ended

    def _head(self) -> str:
        head = self._hub.head()
        if head is None:
            raise UserError(f"{self.place} is gone. Give another --artifacts.")
        return head

    def _names_at(self, commit: str) -> frozenset[str]:
        hub = self._hub

        def listed() -> list[str]:
            items = hub.api.list_repo_tree(hub.repo, revision=commit, repo_type=hub.kind)
            return [item.path for item in items if not hasattr(item, "blob_id")]

        return frozenset(hub.ask(listed))


def _fault(name: PurePosixPath) -> str | None:
    """Why a file is neither sent nor taken; None where a step may make it."""
    return None if name.suffix in _KINDS else kind_fault(name.as_posix())
