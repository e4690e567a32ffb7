"""The Hub as releases need it: addresses, errors in one line, repeats, and what a repository holds by hash.

Talks to the Hub that `HF_ENDPOINT` names, with the token of `HF_TOKEN` or of the Hub's own login. Used by `publish.py`
and `pull.py`. huggingface_hub repeats some requests itself and others (a commit, a tag) not: failures that pass are
repeated here, and Retry-After is heeded. It also waits for an answer for ever: here a Hub that is silent for two
minutes (`SAFERTHOUGHTS_HUB_TIMEOUT` seconds) counts as a connection that was lost.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2
import tenacity
from huggingface_hub import HfApi, get_token, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import default_client_factory

from cards.release_folder import name_fault, shown
from pipelines.errors import UserError, unknown, without_secrets
from pipelines.progress import console
from pipelines.teachers.waits import asked_wait, seconds_from

Done = TypeVar("Done")
_ADDRESS = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_PASSING = (408, 429, 500, 502, 503, 504)
_ATTEMPTS = 5
# The Hub counts requests in windows of five minutes.
_LONGEST_WAIT_S = 600.0
_SILENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Address:
    """A repository of datasets, and a tag, branch or commit of it: ORG/NAME@v1.0.0."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def address_of(text: str) -> Address:
    """Read ORG/NAME or ORG/NAME@REVISION.

    Raises:
        UserError: it is neither.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UserError(f"'{text}' is neither a release folder nor a repository (ORG/NAME or ORG/NAME@v1.0.0).")
    revision = found["revision"]
    # A version may be given without its v.
    if revision and _VERSION.fullmatch(f"v{revision}"):
        revision = f"v{revision}"
    return Address(found["repo"], revision)


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of a repository: bytes, and its hash: sha256 for a large file, git's blob hash for another."""

    size: int
    digest: str
    large: bool

    def is_file(self, path: Path) -> bool:
        """Whether a local file has the same bytes."""
        return path.stat().st_size == self.size and _digest(path, self.large) == self.digest


def _digest(path: Path, large: bool) -> str:
    if large:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Hub:
    """One repository, of a dataset or of a model."""

    def __init__(self, repo: str, kind: Literal["dataset", "model"] = "dataset") -> None:
        self.repo = repo
        self.kind = kind
        set_client_factory(_client)
        self.api = HfApi()

    def ask(self, call: Callable[..., Done], *arguments: Any, **options: Any) -> Done:
        """Make a call that may be made again, and repeat it while its failures are passing.

        Raises:
            UserError: it failed for good; with what to do about it.
        """
        try:
            return _repeated(call, *arguments, **options)
        except Exception as error:
            raise hub_error(error, self) or error from error

    def head(self) -> str | None:
        """The newest commit; None where there is no such repository (or none for this token)."""
        try:
            return str(_repeated(self.api.repo_info, self.repo, repo_type=self.kind).sha)
        except GatedRepoError as error:
            raise hub_error(error, self) or error from error
        except RepositoryNotFoundError:
            return None
        except Exception as error:
            raise hub_error(error, self) or error from error

    def commit_of(self, revision: str) -> str:
        """The commit that a tag, a branch or a commit's name refers to.

        Raises:
            UserError: there is none, with the versions that there are.
        """
        try:
            return str(_repeated(self.api.repo_info, self.repo, revision=revision, repo_type=self.kind).sha)
        except RevisionNotFoundError as error:
            raise unknown(f"version of {self.repo}", revision, self.tags()) from error
        except Exception as error:
            raise hub_error(error, self) or error from error

    def tags(self) -> list[str]:
        """The names of all tags, the newest version last."""
        refs = self.ask(self.api.list_repo_refs, self.repo, repo_type=self.kind)
        return sorted((tag.name for tag in refs.tags), key=_version_key)

    def newest(self) -> str:
        """The tag of the newest version, or `main` where nothing is tagged."""
        versions = [tag for tag in self.tags() if _VERSION.fullmatch(tag)]
        return versions[-1] if versions else "main"

    def tree(self, revision: str, under: str | None = None) -> dict[str, Stored]:
        """Every file of a commit, or of one folder of it, by path, but for git's own."""

        def listed() -> list[Any]:
            return list(
                self.api.list_repo_tree(self.repo, under, recursive=True, revision=revision, repo_type=self.kind)
            )

        found = {
            item.path: Stored(item.lfs.size, item.lfs.sha256, True)
            if item.lfs
            else Stored(item.size, item.blob_id, False)
            for item in self.ask(listed)
            if hasattr(item, "blob_id") and item.path != ".gitattributes"
        }
        for path in found:
            fault = name_fault(path)
            if fault is not None:
                raise UserError(f"{self.repo} has a file {shown(path)!r}, which {fault}.")
        return found


def _client() -> httpx2.Client:
    """huggingface_hub's own client, but not one that waits for ever."""
    client = default_client_factory()
    client.timeout = httpx2.Timeout(seconds_from("SAFERTHOUGHTS_HUB_TIMEOUT", _SILENCE_S))
    return client


def _version_key(tag: str) -> tuple[Any, ...]:
    found = _VERSION.fullmatch(tag)
    return (1, *map(int, found.groups())) if found else (0, tag)


def root(error: BaseException) -> BaseException:
    """The Hub's own error: uploads wrap it in a RuntimeError."""
    inner = error.__cause__
    if isinstance(error, RuntimeError) and isinstance(inner, HfHubHTTPError | httpx2.TransportError):
        return inner
    return error


def passing(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    error = root(error)
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in _PASSING
    return isinstance(error, httpx2.TransportError)


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    error = state.outcome.exception() if state.outcome else None
    return None if error is None else root(error)


def _wait(state: tenacity.RetryCallState) -> float:
    error = _error_of(state)
    asked = asked_wait(error.response.headers, _LONGEST_WAIT_S) if isinstance(error, HfHubHTTPError) else None
    usual = tenacity.wait_exponential(multiplier=0.5, max=20) + tenacity.wait_random(0, 1)
    return float(usual(state)) if asked is None else asked


def _report(state: tenacity.RetryCallState) -> None:
    error = _error_of(state)
    seconds = state.next_action.sleep if state.next_action else 0
    console.print(f"the Hub: {_why(error)}; again in {seconds:.0f} s", highlight=False, markup=False)


def _repeated(call: Callable[..., Done], *arguments: Any, **options: Any) -> Done:
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passing),
        wait=_wait,
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        before_sleep=_report,
        reraise=True,
    )
    return again(call, *arguments, **options)


def repeated(call: Callable[[], Done]) -> Done:
    """Make a call, and repeat it while its failures are passing; the last failure is raised as it is."""
    return _repeated(call)


def _why(error: BaseException | None) -> str:
    """An error's message with the token and other secrets removed."""
    token = get_token()
    message = without_secrets(" ".join(_words(error).split()))
    return message.replace(token, "(token)") if token else message


def _words(error: BaseException | None) -> str:
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        message = error.response.headers.get("x-error-message") or ""
        return f"status {error.response.status_code}{f' ({message})' if message else ''}"
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"


def hub_error(error: BaseException, hub: Hub) -> UserError | None:
    """An error of the Hub as one line with what to do; None for any other."""
    error = root(error)
    if isinstance(error, UserError):
        return error
    if isinstance(error, LocalTokenNotFoundError):
        return UserError("There is no token for the Hub. Set HF_TOKEN, or log in: hf auth login")
    if isinstance(error, OfflineModeIsEnabled):
        return UserError("HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it, or give a local release folder.")
    if isinstance(error, HFValidationError):
        return UserError(f"'{hub.repo}' cannot be a repository: {' '.join(str(error).split())}")
    if isinstance(error, GatedRepoError):
        page = f"{hub.api.endpoint}/{'datasets/' if hub.kind == 'dataset' else ''}{hub.repo}"
        return UserError(f"{hub.repo} is gated. Ask for access on its page ({page}), then set HF_TOKEN.")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"There is no {hub.kind} {hub.repo} at {hub.api.endpoint}, or it is private and the token may not see it. "
            "Check the name, and HF_TOKEN."
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status == 401:
            return UserError(f"The Hub does not accept the token ({_why(error)}). Set HF_TOKEN to a valid one.")
        if status == 403:
            return UserError(
                f"The token may not do this in {hub.repo} ({_why(error)}). Use a token with write access to "
                f"{hub.repo.split('/')[0]}, or another name."
            )
        if status == 507:
            return UserError(f"The Hub has no room left for {hub.repo} ({_why(error)}). Free some, and run it again.")
        return UserError(
            f"The Hub at {hub.api.endpoint} refused: {_why(error)}. What was done is kept: run the same command again."
        )
    if isinstance(error, httpx2.TransportError):
        return UserError(
            f"The Hub at {hub.api.endpoint} does not answer ({_why(error)}). What was done is kept: run the same "
            "command again."
        )
    return None
