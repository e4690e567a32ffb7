"""Who may read and write at the Hub of the tests: three users by their tokens, one organisation."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from store import Refusal, Store

USERS = {"hf_alice": ("alice", "write"), "hf_bob": ("bob", "write"), "hf_carol": ("carol", "read")}
MEMBERS = {"acme": ("alice", "bob")}


def may_write(user: str | None, repo: str) -> bool:
    owner = repo.split("/")[0]
    return user is not None and user in (owner, *MEMBERS.get(owner, ()))


class Access:
    """What a request's token opens of what the store has."""

    store: Store

    def user(self, request: Request, needed: bool = False) -> tuple[str | None, str]:
        token = (request.headers.get("authorization") or "").removeprefix("Bearer ").strip()
        if not token and not needed:
            return None, "read"
        if token not in USERS:
            raise Refusal(401, "Invalid username or password." if not token else "Invalid credentials")
        return USERS[token]

    def readable(self, request: Request, kind: str, name: str, content: bool = False) -> dict[str, Any]:
        user, _ = self.user(request)
        if not self.store.exists(kind, name):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        repo = self.store.repo(kind, name)
        if repo["private"] and not may_write(user, name):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if content and repo["gated"] and not may_write(user, name):
            raise Refusal(403 if user else 401, f"Access to {name} is restricted", "GatedRepo")
        return repo

    def writable(self, request: Request, kind: str, name: str) -> tuple[str, dict[str, Any]]:
        user, role = self.user(request, needed=True)
        repo = self.readable(request, kind, name)
        if role != "write" or not may_write(user, name):
            raise Refusal(403, f"You don't have write access to {name}")
        return str(user), repo

    def whoami(self, request: Request) -> Response:
        user, role = self.user(request, needed=True)
        orgs = [{"type": "org", "name": org} for org, members in MEMBERS.items() if user in members]
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        return JSONResponse({"type": "user", "id": user, "name": user, "orgs": orgs, "auth": auth})
