"""Who may do what: bearer tokens with a role, sessions of the page, one-time links.

Tokens are 256 random bits; the store has their sha256 only, which for such tokens cannot be turned round. A session is
what a browser holds in place of a token; it ends with the token that it came from.
"""

import hashlib
import re
import secrets
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.errors import UserError, unknown
from service.store import Store

# Each may do what those before it may.
ROLES = ("read", "run", "publish")
PREFIX = "st_"
SESSION_DAYS = 7.0
# Whoever came by the link that `serve` printed.
LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DAY_S = 86_400.0


class Unknown(Exception):
    """No such token or session, or one that is not valid any more; the message says which."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a token's name and role. `form_key` proves that a form was made for this session; "" for a token."""

    name: str
    role: str
    form_key: str = ""

    def may(self, role: str) -> bool:
        """Whether the caller has at least that role."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is listed. Times are in seconds since 1970, `expires` None for never."""

    name: str
    role: str
    created: float
    expires: float | None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= time.time()


def digest(secret: str) -> str:
    """How a secret is kept."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Tokens:
    """The tokens and sessions of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codes: set[str] = set()

    def add(self, name: str, role: str, days: float | None = None) -> str:
        """Make a token and return it; it cannot be had again.

        Raises:
            UserError: a bad or taken name, or an unknown role.
        """
        if not _NAME.fullmatch(name):
            raise UserError(f"Token name '{name}': use letters, digits, '.', '_' and '-', at most 64 of them.")
        if role not in ROLES:
            raise unknown("role", role, ROLES)
        secret = PREFIX + secrets.token_urlsafe(32)
        now = time.time()
        expires = None if days is None else now + days * _DAY_S
        try:
            self._store.change("INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", name, digest(secret), role, now, expires)
        except sqlite3.IntegrityError as error:
            raise UserError(
                f"There is a token '{name}' already. Revoke it first: saferthoughts serve token revoke {name}"
            ) from error
        return secret

    def listed(self) -> list[Token]:
        """Every token, by name; nothing by which one could be used."""
        return [
            Token(**row) for row in self._store.all("SELECT name, role, created, expires FROM tokens ORDER BY name")
        ]

    def revoke(self, name: str) -> None:
        """Delete a token and its sessions.

        Raises:
            UserError: there is none of that name.
        """
        if not self._store.change("DELETE FROM tokens WHERE name = ?", name):
            raise unknown("token", name, [token.name for token in self.listed()])
        self._store.change("DELETE FROM sessions WHERE token = ?", name)

    def caller(self, secret: str) -> Caller:
        """Who holds a token.

        Raises:
            Unknown: nobody, or nobody any more.
        """
        row = self._store.one("SELECT name, role, created, expires FROM tokens WHERE hash = ?", digest(secret))
        if row is None:
            raise Unknown("This token is not known here. Make one: saferthoughts serve token add NAME --role read")
        token = Token(**row)
        if token.expired:
            day = datetime.fromtimestamp(token.expires or 0, UTC).strftime("%Y-%m-%d %H:%M UTC")
            raise Unknown(
                f"Token '{token.name}' expired on {day}. Revoke it and make another: saferthoughts serve token add"
            )
        return Caller(token.name, token.role)

    def one_time_code(self) -> str:
        """A code that opens one session, for whoever started the service; lost when the service ends."""
        code = secrets.token_urlsafe(32)
        self._codes.add(digest(code))
        return code

    def use_code(self, code: str) -> str:
        """A session for a one-time code.

        Raises:
            Unknown: no such code, or it was used.
        """
        if digest(code) not in self._codes:
            raise Unknown(
                "This link was used already, or belongs to a service that has ended. Start the service again for a "
                "new one, or log in with a token."
            )
        self._codes.discard(digest(code))
        return self._open(None, ROLES[-1], None)

    def log_in(self, secret: str) -> str:
        """A session for a token.

        Raises:
            Unknown: nobody holds it.
        """
        caller = self.caller(secret)
        row = self._store.one("SELECT expires FROM tokens WHERE name = ?", caller.name)
        return self._open(caller.name, caller.role, row["expires"] if row else None)

    def _open(self, token: str | None, role: str, until: float | None) -> str:
        secret = secrets.token_urlsafe(32)
        now = time.time()
        expires = now + SESSION_DAYS * _DAY_S
        self._store.change("DELETE FROM sessions WHERE expires <= ?", now)
        self._store.change(
            "INSERT INTO sessions VALUES (?, ?, ?, ?)", digest(secret), token, role, min(expires, until or expires)
        )
        return secret

    def session(self, secret: str) -> Caller:
        """Whose session it is.

        Raises:
            Unknown: nobody's, or nobody's any more.
        """
        row = self._store.one("SELECT token, role, expires FROM sessions WHERE hash = ?", digest(secret))
        if row is None or row["expires"] <= time.time():
            raise Unknown("This session is over. Log in again.")
        return Caller(row["token"] or LOCAL, row["role"], digest(f"form:{secret}"))

    def log_out(self, secret: str) -> None:
        """End a session."""
        self._store.change("DELETE FROM sessions WHERE hash = ?", digest(secret))
