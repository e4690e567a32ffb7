"""A Hub for tests, over HTTP, for the real clients: repositories, commits, large files, tags, trees, downloads, gates.

    python tests/hub/server.py ROOT PORT_FILE [--xet] [--page N]

Tokens: hf_alice and hf_bob may write to acme, hf_carol may read. /_root sets another ROOT, /_faults sets faults
(faults.py), /_held gives the paths that wait, /_log every request since the last call as [method, path, status].
"""

import argparse
import base64
import hashlib
import json
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

import uvicorn
import xet
import yaml
from access import Access, may_write
from faults import Fault, Faults
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send
from store import LARGE, Refusal, Store, pointer


class Hub(Access):
    """The application: ASGI, routed by hand, since revisions and paths come percent-encoded within a segment."""

    def __init__(self, root: Path, url: str, with_xet: bool, page: int) -> None:
        self.url, self.page, self.with_xet = url, page, with_xet
        self.faults = Faults()
        self.keep_in(root)

    def keep_in(self, root: Path) -> None:
        """Be a Hub with what that folder holds: nothing, if it is new."""
        self.store = Store(root)
        self.cas = root / "cas" if self.with_xet else None
        self.log: list[list[Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        request = Request(scope, receive)
        path = scope["raw_path"].decode()
        if path.startswith("/_"):
            await (await self.control(request, path))(scope, receive, send)
            return
        fault = await self.faults.of(request.method, path)
        response: Response | None = None
        if fault is None or fault.after:
            response = await self.answer(request, path)
        if fault is not None:
            self.log.append([request.method, path, 0 if fault.cut else fault.status])
            if fault.cut:
                # Less than was announced: Uvicorn closes the connection.
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
                await send({"type": "http.response.body", "body": b""})
                return
            response = failed(fault)
        else:
            assert response is not None
            self.log.append([request.method, path, response.status_code])
        await response(scope, receive, send)

    async def answer(self, request: Request, path: str) -> Response:
        try:
            return await self.route(request, [unquote(part) for part in path.strip("/").split("/")])
        except Refusal as error:
            headers = {"X-Error-Message": error.message, **{k.replace("_", "-"): v for k, v in error.headers.items()}}
            if error.code:
                headers["X-Error-Code"] = error.code
            return JSONResponse({"error": error.message}, error.status, headers=headers)

    async def control(self, request: Request, path: str) -> Response:
        if path == "/_faults":
            self.faults.set(await request.json())
            return JSONResponse({})
        if path == "/_root":
            self.keep_in(Path(await request.json()))
            return JSONResponse({})
        if path == "/_held":
            return JSONResponse(self.faults.held)
        if path == "/_log":
            entries, self.log = self.log, []
            return JSONResponse(entries)
        if path.startswith("/_large/") and request.method == "PUT":
            fault = await self.faults.of("PUT", path)
            if fault is not None and not fault.after:
                self.log.append(["PUT", path, fault.status])
                return failed(fault)
            return await self.receive_large(request, path.split("/")[2])
        return JSONResponse({})

    async def route(self, request: Request, parts: list[str]) -> Response:
        method = request.method
        match parts:
            case ["api", "whoami-v2"]:
                return self.whoami(request)
            case ["api", "repos", "create"]:
                return await self.create(request)
            case ["api", "validate-yaml"]:
                return self.validate(await request.json())
            case ["api", kind, org, name, *rest] if kind in ("models", "datasets"):
                return await self.of_repo(request, method, kind, f"{org}/{name}", rest)
            case ["datasets", org, git, "info", "lfs", "objects", "batch"]:
                return await self.batch(request, "datasets", f"{org}/{git.removesuffix('.git')}")
            case [org, git, "info", "lfs", "objects", "batch"]:
                return await self.batch(request, "models", f"{org}/{git.removesuffix('.git')}")
            case ["datasets", org, name, "resolve", revision, *path]:
                return self.download(request, "datasets", f"{org}/{name}", revision, "/".join(path))
            case [org, name, "resolve", revision, *path]:
                return self.download(request, "models", f"{org}/{name}", revision, "/".join(path))
        raise Refusal(404, "no such page")

    async def of_repo(self, request: Request, method: str, kind: str, name: str, rest: list[str]) -> Response:
        match [method, *rest]:
            case ["GET"]:
                return self.info(request, kind, name, "main")
            case ["GET", "revision", *revision]:
                return self.info(request, kind, name, "/".join(revision))
            case ["GET", "auth-check", *write]:
                (self.writable if write else self.readable)(request, kind, name)
                return Response()
            case ["GET", "refs"]:
                return self.refs(request, kind, name)
            case ["GET", "commits", *revision]:
                return self.commits(request, kind, name, "/".join(revision))
            case ["GET", "tree", revision, *path]:
                return self.tree(request, kind, name, revision, "/".join(path))
            case ["POST", "paths-info", revision]:
                return await self.paths(request, kind, name, revision)
            case ["POST", "preupload", revision]:
                return await self.preupload(request, kind, name, revision)
            case ["POST", "commit", branch]:
                return await self.make_commit(request, kind, name, branch)
            case ["POST", "tag", *revision]:
                return await self.tag(request, kind, name, "/".join(revision))
            case ["DELETE", "tag", tag]:
                return self.delete_tag(request, kind, name, tag)
            case ["PUT", "settings"]:
                return await self.settings(request, kind, name)
            case ["GET", "xet-write-token" | "xet-read-token", *_] if self.cas:
                (self.writable if "write" in rest[0] else self.readable)(request, kind, name)
                return self.xet_token()
        raise Refusal(404, "no such page")

    # repositories

    async def create(self, request: Request) -> Response:
        user, role = self.user(request, needed=True)
        wanted = await request.json()
        kind, name = f"{wanted.get('type') or 'model'}s", f"{wanted.get('organization') or user}/{wanted['name']}"
        if role != "write" or not may_write(user, name):
            raise Refusal(403, f"You don't have the rights to create a repo under {name.split('/')[0]}")
        url = f"{self.url}/{'' if kind == 'models' else f'{kind}/'}{name}"
        with self.store.lock:
            if self.store.exists(kind, name):
                return JSONResponse({"error": "You already created this repo", "url": url}, 409)
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.store.create(kind, name, private, str(user))
        return JSONResponse({"url": url, "name": name, "id": name})

    async def settings(self, request: Request, kind: str, name: str) -> Response:
        _, repo = self.writable(request, kind, name)
        repo.update({key: value for key, value in (await request.json()).items() if key in ("gated", "private")})
        self.store.save(repo)
        return JSONResponse({"gated": repo["gated"], "private": repo["private"]})

    def validate(self, wanted: dict[str, Any]) -> Response:
        text = re.match(r"---\n(.*?)\n---", wanted["content"], re.DOTALL)
        try:
            front = yaml.safe_load(text[1]) if text else {}
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        warnings = [] if front else [{"message": "empty or missing yaml metadata in repo card"}]
        return JSONResponse({"errors": [], "warnings": warnings})

    def info(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self.readable(request, kind, name)
        head = self.store.resolve(repo, revision)
        commit = self.store.commit(head)
        files = [{"rfilename": path} for path in sorted(commit["tree"])]
        about = {
            "_id": name,
            "id": name,
            "author": name.split("/")[0],
            "private": repo["private"],
            "gated": repo["gated"],
        }
        state = {"sha": head, "createdAt": repo["created"], "lastModified": commit["date"], "siblings": files}
        return JSONResponse(about | state | {"disabled": False, "downloads": 0, "likes": 0, "tags": []})

    def refs(self, request: Request, kind: str, name: str) -> Response:
        repo = self.readable(request, kind, name)

        def listed(names: dict[str, str], where: str) -> list[dict[str, str]]:
            return [{"name": ref, "ref": f"refs/{where}/{ref}", "targetCommit": sha} for ref, sha in names.items()]

        branches, tags = listed(repo["branches"], "heads"), listed(repo["tags"], "tags")
        return JSONResponse({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def commits(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self.readable(request, kind, name)
        found = []
        for sha, commit in self.store.history(self.store.resolve(repo, revision)):
            facts = {"title": commit["title"], "message": commit["message"], "date": commit["date"]}
            found.append({"id": sha, **facts, "authors": [{"user": commit["author"]}]})
        return JSONResponse(found)

    async def tag(self, request: Request, kind: str, name: str, revision: str) -> Response:
        wanted = await request.json()
        with self.store.lock:
            _, repo = self.writable(request, kind, name)
            if wanted["tag"] in repo["tags"]:
                raise Refusal(409, f"Tag reference exists already: {wanted['tag']}")
            repo["tags"][wanted["tag"]] = self.store.resolve(repo, revision)
            self.store.save(repo)
        return JSONResponse({})

    def delete_tag(self, request: Request, kind: str, name: str, tag: str) -> Response:
        with self.store.lock:
            _, repo = self.writable(request, kind, name)
            if repo["tags"].pop(tag, None) is None:
                raise Refusal(404, f"Tag not found: {tag}", "RevisionNotFound")
            self.store.save(repo)
        return JSONResponse({})

    # trees and files

    def tree(self, request: Request, kind: str, name: str, revision: str, path: str) -> Response:
        repo = self.readable(request, kind, name)
        found = self.store.commit(self.store.resolve(repo, revision))["tree"]
        within = f"{path}/" if path else ""
        deep = request.query_params.get("recursive", "").lower() == "true"
        items: dict[str, dict[str, Any]] = {}
        for file, entry in sorted(found.items()):
            if not file.startswith(within):
                continue
            inner = file.removeprefix(within).split("/")
            for depth in range(1, len(inner) if deep else min(2, len(inner))):
                folder = within + "/".join(inner[:depth])
                items[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
            if deep or len(inner) == 1:
                items[file] = listed(file, entry)
        if within and not items:
            raise Refusal(404, f"{path} does not exist", "EntryNotFound")
        names, start = sorted(items), int(request.query_params.get("cursor", 0))
        headers = {}
        if start + self.page < len(names):
            following = urlencode({**request.query_params, "cursor": start + self.page})
            headers["Link"] = f'<{self.url}{request.scope["raw_path"].decode()}?{following}>; rel="next"'
        return JSONResponse([items[one] for one in names[start : start + self.page]], headers=headers)

    async def paths(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self.readable(request, kind, name)
        raw = (await request.body()).decode()
        asked = json.loads(raw) if "json" in request.headers.get("content-type", "") else parse_qs(raw)
        tree = self.store.commit(self.store.resolve(repo, revision))["tree"]
        return JSONResponse([listed(path, tree[path]) for path in asked.get("paths", []) if path in tree])

    def download(self, request: Request, kind: str, name: str, revision: str, path: str) -> Response:
        repo = self.readable(request, kind, name, content=True)
        sha = self.store.resolve(repo, revision)
        entry = self.store.commit(sha)["tree"].get(path)
        if entry is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=sha)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry["sha256"] if entry["large"] else entry["oid"]}"'}
        headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(Path(path).name)}"
        if entry["large"]:
            headers |= {"X-Linked-Size": str(entry["size"]), "X-Linked-Etag": f'"{entry["sha256"]}"'}
        if entry.get("xet"):
            url = f"{self.url}/api/{kind}/{name}/xet-read-token/{sha}"
            headers |= {"X-Xet-Hash": entry["xet"], "Link": f'<{url}>; rel="xet-auth"'}
        return FileResponse(self.store.blob(entry["sha256"]), headers=headers)

    # writing

    async def preupload(self, request: Request, kind: str, name: str, revision: str) -> Response:
        _, repo = self.writable(request, kind, name)
        head = self.store.resolve(repo, revision)
        tree = self.store.commit(head)["tree"]
        answers = []
        for file in (await request.json())["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) or file["size"] > 10_000_000 else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            if file["path"] in tree:
                entry = tree[file["path"]]
                answer["oid"] = entry["sha256"] if entry["large"] else entry["oid"]
            answers.append(answer)
        return JSONResponse({"files": answers, "commitOid": head})

    async def batch(self, request: Request, kind: str, name: str) -> Response:
        self.writable(request, kind, name)
        objects = []
        for wanted in (await request.json())["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if not self.store.blob(wanted["oid"]).exists():
                answer["actions"] = {"upload": {"href": f"{self.url}/_large/{wanted['oid']}"}}
            objects.append(answer)
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    async def receive_large(self, request: Request, digest: str) -> Response:
        target, hashed = self.store.blob(digest), hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            async for chunk in request.stream():
                file.write(chunk)
                hashed.update(chunk)
        if hashed.hexdigest() != digest:
            Path(file.name).unlink()
            return JSONResponse({"error": "other bytes than announced"}, 400)
        Path(file.name).replace(target)
        self.log.append(["PUT", f"/_large/{digest}", 200])
        return Response(headers={"ETag": f'"{digest}"'})

    async def make_commit(self, request: Request, kind: str, name: str, branch: str) -> Response:
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        with self.store.lock:
            user, repo = self.writable(request, kind, name)
            if branch not in repo["branches"]:
                raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            parent = repo["branches"][branch]
            if header.get("parentCommit") and header["parentCommit"] != parent:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(self.store.commit(parent)["tree"])
            for line in lines:
                self.apply(tree, line["key"], line["value"])
            sha = self.store.add(tree, parent, header["summary"], header.get("description", ""), user)
            repo["branches"][branch] = sha
            self.store.save(repo)
        url = f"{self.url}/{'' if kind == 'models' else f'{kind}/'}{name}/commit/{sha}"
        return JSONResponse({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def apply(self, tree: dict[str, Any], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            tree[value["path"]] = self.store.small(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            name = xet.fetch(self.cas, value["oid"], self.store.blob(value["oid"])) if self.cas else None
            tree[value["path"]] = self.store.large(value["oid"], name)
        elif key == "deletedFile" and tree.pop(value["path"], None) is None:
            raise Refusal(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")

    def xet_token(self) -> Response:
        url, until = f"local://{self.cas}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Token-Expiration": str(until), "X-Xet-Access-Token": "x"}
        return JSONResponse({"casUrl": url, "exp": until, "accessToken": "x"}, headers=headers)


def failed(fault: Fault) -> Response:
    return JSONResponse({"error": fault.message}, fault.status, {"X-Error-Message": fault.message, **fault.headers})


def listed(path: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A file as trees list it."""
    found = {"type": "file", "path": path, "size": entry["size"], "oid": entry["oid"]}
    if entry["large"]:
        size = len(pointer(entry["sha256"], entry["size"]))
        found["lfs"] = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": size}
        if entry.get("xet"):
            found["xetHash"] = entry["xet"]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--xet", action="store_true")
    parser.add_argument("--page", type=int, default=7)
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = Hub(options.root.resolve(), address, options.xet, options.page)
    options.port_file.write_text(address)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    server.run(sockets=[listening])
