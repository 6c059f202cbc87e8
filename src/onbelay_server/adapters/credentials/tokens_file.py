"""The operator's file of who may call, read again when it changes."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from onbelay_server.adapters.credentials.credential_book import CredentialBook
from onbelay_server.app.credentials import ALL_BUT_CODE, ROLES
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credential, CredentialKind

_LOOK_EVERY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class TokensFileError(Exception):
    """The file cannot be used; the text is one line for the operator."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    user: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.@-]{0,62}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roles: list[str] = []
    scopes: list[str] = []
    expires: AwareDatetime | None = None
    person: bool = True


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: list[_Entry]


class TokensFile:
    """The credentials of a TOML file (`[[tokens]]` tables) or a JSON one (`{"tokens": […]}`).

    Each entry has tenant, user, sha256 of the token, roles and further scopes, and may have expires
    and person = false. A change is seen within a second. A file that can no longer be read or
    understood keeps the last good list in force and is reported in the log: half a save must not
    lock everybody out.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Raises TokensFileError."""
        self._path = path
        self._clock = clock
        self._seen = self._mark()
        self._book = _load(path, clock)
        self._looked = clock.monotonic()

    def find(self, token: str) -> Credential | None:
        """See `Credentials.find`."""
        self._refresh()
        return self._book.find(token)

    def tenants(self) -> Collection[str]:
        """See `Credentials.tenants`."""
        self._refresh()
        return self._book.tenants()

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked < _LOOK_EVERY_SECONDS:
            return
        self._looked = now
        mark = self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._book = _load(self._path, self._clock)
        except TokensFileError as problem:
            extra = {"action": "tokens_file_refused", "problem": str(problem)}
            log.error("tokens file not read", extra=extra)
        else:
            log.info(
                "tokens file read", extra={"action": "tokens_file_read", "path": str(self._path)}
            )

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _load(path: Path, clock: Clock) -> CredentialBook:
    try:
        data = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise TokensFileError(f"{path} cannot be read: {reason}") from None
    try:
        document = _Document.model_validate(_parsed(path, data))
        entries = [(entry.sha256, _credential(entry)) for entry in document.tokens]
        return CredentialBook(entries, clock)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TokensFileError(f"{path}: {where}: {first['msg']}") from None
    except ValueError as problem:
        raise TokensFileError(f"{path}: {problem}") from None


def _parsed(path: Path, data: str) -> dict[str, Any]:
    if path.suffix != ".json":
        return tomllib.loads(data)
    found = json.loads(data)
    return {"tokens": found} if isinstance(found, list) else found


def _credential(entry: _Entry) -> Credential:
    scopes: set[Scope] = set()
    for role in entry.roles:
        if role not in ROLES:
            raise ValueError(
                f"{entry.user} has the unknown role {role!r}; known: {', '.join(ROLES)}"
            )
        scopes |= ROLES[role]
    for scope in entry.scopes:
        scopes |= ALL_BUT_CODE if scope == "*" else {Scope(scope)}
    principal = Principal(
        tenant=entry.tenant,
        id=f"{'user' if entry.person else 'key'}:{entry.user}",
        is_person=entry.person,
        scopes=frozenset(scopes),
    )
    return Credential(
        principal=principal,
        kind=CredentialKind.TOKEN,
        roles=tuple(entry.roles),
        expire_us=int(entry.expires.timestamp() * 1_000_000) if entry.expires else None,
    )
