"""A finished model to the Hub: its folder as one commit, read back.

Reads a folder that `saferthoughts train` wrote and a repository; writes one commit. Run it with `saferthoughts train
RECIPE ... --push ORG/NAME`, also later: a model that is finished is not trained again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils.tqdm import disable_progress_bars

from cards.card.model_card import RECORD
from cards.hub.hub import Hub
from cards.hub.push import Push
from pipelines.errors import UserError
from pipelines.judges.local.model import RECORD as JUDGE
from pipelines.judges.local.model import digest_of
from pipelines.public_names import LOCAL


@dataclass(frozen=True, slots=True)
class PushedModel:
    """Where a model is now. `fresh`: the commit was made by this push."""

    repo: str
    commit: str
    fresh: bool


def check_pushable(repo: str) -> None:
    """Whether a model may go there, as far as it can be told before there is one.

    Raises:
        UserError: no token or a wrong one, a name that cannot be, a repository that holds something else.
    """
    hub = Hub(repo, "model")
    who = hub.ask(hub.api.whoami)
    head = hub.head()
    if head is not None:
        hub.ask(hub.api.auth_check, repo, repo_type="model", write=True)
        _check_there(hub, head)
    elif (fault := _may_not_create(who, repo)) is not None:
        raise UserError(f"{fault}, so {repo} cannot be made. Use a token that may write there, or another name.")


def _may_not_create(who: Any, repo: str) -> str | None:
    """Why a token may not make a repository, by what the Hub tells of it; what is told otherwise is let pass."""
    owner = repo.split("/")[0]
    token = (who.get("auth") or {}).get("accessToken") or {}
    orgs = {str(org.get("name")): org.get("roleInOrg") for org in who.get("orgs") or ()}
    scoped = (token.get("fineGrained") or {}).get("scoped")
    if token.get("role") == "read":
        return "The token may only read"
    if token.get("role") == "fineGrained" and isinstance(scoped, list):
        names = {part["entity"].get("name") for part in scoped if "repo.write" in (part.get("permissions") or ())}
        return None if owner in names else f"The fine-grained token may not write (repo.write) to {owner}"
    if owner != who.get("name") and orgs.get(owner, "read" if owner not in orgs else None) == "read":
        return f"{who.get('name')} may not write to {owner}"
    return None


def push_model(folder: Path, repo: str, private: bool = False) -> PushedModel:
    """Push a model.

    Args:
        folder: A model of this project.
        repo: ORG/NAME; made where there is none.
        private: Only for those whom the owner lets in.

    Raises:
        UserError: no finished model, a path of this machine in it, something else in the repository, or the Hub
            refuses or does not answer.
    """
    disable_progress_bars()
    push = Push(Hub(repo, "model"), folder, f"{folder.name}, {_origin_of(folder)}", "SaferThoughts", _leaves)
    push.prepare(private, gated=False)
    head = push.hub.head()
    if head is None:
        raise UserError(f"{repo} was made and cannot be seen. Check that the token may read it.")
    _check_there(push.hub, head)
    difference = push.difference(push.hub.tree(head))
    commit = head if difference.empty else push.commit(head, difference)
    push.check(commit, commit[:8])
    return PushedModel(repo, commit, fresh=not difference.empty)


def _leaves(name: str) -> bool:
    """Whether a file is pushed. An evaluation's logs hold other people's questions and what was answered: not these."""
    return name.startswith("tensorboard/") or ("/" not in name and name != LOCAL)


def _origin_of(folder: Path) -> str:
    """What a student was trained from, or the version of a local judge."""
    if (folder / JUDGE).is_file() and not (folder / RECORD).exists():
        return f"a local judge, version {digest_of(folder)[:12]}"
    try:
        return f"trained from {json.loads((folder / RECORD).read_text(encoding='utf-8'))['student']['model']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no model that was trained here ({RECORD} cannot be read: {error}).") from error


def _check_there(hub: Hub, head: str) -> None:
    there = hub.tree(head)
    if set(there) - {"README.md"} and not {RECORD, JUDGE} & set(there):
        raise UserError(
            f"{hub.repo} holds files that are no model of this project ({', '.join(sorted(there)[:3])}). Choose "
            "another name."
        )
