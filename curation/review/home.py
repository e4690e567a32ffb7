"""Where the embedded Argilla server lives, and how to get a client of it or of a server of the user's own.

runs/.argilla/            (--home; mode 0700)
  credentials.json        accounts, API keys, the server's secret; mode 0600
  server.json             address and process of the server, while it runs
  argilla.db ...          what the server keeps
"""

import json
import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.files import atomic, write_json

URL_VARIABLE, KEY_VARIABLE = "ARGILLA_API_URL", "ARGILLA_API_KEY"
WORKSPACE = "saferthoughts"
_LEAST_VERSION = (2, 0)


def home_of(runs: Path) -> Path:
    """The embedded server's folder, beside the runs that it serves."""
    return runs / ".argilla"


def credentials_of(home: Path, annotators: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The accounts of the embedded server, made where they are missing; and those that are new."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    path = home / "credentials.json"
    found: dict[str, Any] = {"secret": secrets.token_hex(32), "accounts": []}
    if path.exists():
        found = _read_credentials(path)
    wanted = [("owner", "owner"), *((f"annotator-{number}", "annotator") for number in range(1, annotators + 1))]
    names = {account["username"] for account in found["accounts"]}
    new = [
        {"username": name, "role": role, "password": secrets.token_urlsafe(9), "api_key": secrets.token_urlsafe(32)}
        for name, role in wanted
        if name not in names
    ]
    if new:
        found["accounts"] += new
        write_private(path, json.dumps(found, indent=2).encode())
    return found, new


def _read_credentials(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["secret"], str) and all(isinstance(one["username"], str) for one in found["accounts"]):
            return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(
        f"{path} cannot be read: it is broken. Put a copy of it back; or move {path.parent} away, with all votes on "
        "its server, and begin anew: saferthoughts review serve"
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    with atomic(path) as temporary:
        temporary.chmod(0o600)
        temporary.write_bytes(content)


def connect(runs: Path) -> Any:
    """An Argilla client: of the server that the environment names, or of the embedded one that is running.

    Raises:
        UserError: no server is running, it cannot be reached, is too old, or refuses the key.
    """
    url, key = address(runs)
    version = server_version(url)
    if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VERSION:
        raise UserError(
            f"Argilla at {url} is version {version}; this needs {'.'.join(map(str, _LEAST_VERSION))} or newer."
        )
    import argilla

    from curation.review.quiet import quiet

    try:
        with quiet():
            return argilla.Argilla(api_url=url, api_key=key)
    except UserError as error:
        raise UserError(f"Argilla at {url} refuses the API key. {_which_key()}") from error


def address(runs: Path) -> tuple[str, str]:
    """URL and API key of the server to talk to.

    Raises:
        UserError: none is named and none is running, or the key is missing.
    """
    url, key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
    if url:
        if not key:
            raise UserError(
                f"{URL_VARIABLE} is set and {KEY_VARIABLE} is not. Set it to the API key of an owner or admin."
            )
        return url.rstrip("/"), key
    state = home_of(runs) / "server.json"
    if not state.exists():
        raise UserError(
            "No Argilla server is running here. Start one in another terminal: saferthoughts review serve; or name "
            f"yours with {URL_VARIABLE} and {KEY_VARIABLE}."
        )
    credentials = json.loads((home_of(runs) / "credentials.json").read_text(encoding="utf-8"))
    owner = next(account for account in credentials["accounts"] if account["role"] == "owner")
    return str(json.loads(state.read_text(encoding="utf-8"))["url"]), str(owner["api_key"])


def server_version(url: str) -> str:
    """The version of the Argilla server at a URL.

    Raises:
        UserError: nothing answers there, or something else does.
    """
    try:
        with urllib.request.urlopen(f"{url}/api/v1/version", timeout=10) as answer:
            return str(json.load(answer)["version"])
    except (urllib.error.HTTPError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"What answers at {url} is no Argilla server.") from error
    except OSError as error:
        raise UserError(
            f"Argilla at {url} cannot be reached ({getattr(error, 'reason', error)}). "
            "Start it: saferthoughts review serve"
        ) from error


def _which_key() -> str:
    return f"Set {KEY_VARIABLE} to the key of an owner or admin (in Argilla: My settings)."


def remember(home: Path, url: str, process: int) -> None:
    """Note where the server is, for the commands that look for it."""
    write_json(home / "server.json", {"url": url, "pid": process})


def forget(home: Path) -> None:
    """The server has stopped."""
    (home / "server.json").unlink(missing_ok=True)
