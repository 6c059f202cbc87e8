"""What the operator can set, by option, by `ONBELAY_…` or not at all.

Read by the command line and the wiring only; everybody else is handed values.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DATABASE_FILE = "onbelay.db"
BLOBS_FOLDER = "blobs"
"""What lies in a state folder."""

_OFF = frozenset({"off", "none", "no"})


def user_state_dir() -> Path:
    """Where this platform keeps what a user's programs remember between starts."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "onbelay"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "onbelay"
    state_home = os.environ.get("XDG_STATE_HOME")
    return (Path(state_home) if state_home else Path.home() / ".local" / "state") / "onbelay"


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[ipv6]:port` in its parts; ValueError when it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is no address of the form host:port")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{address!r}: write an IPv6 address as [address]:port")
    return host, int(port)


class Settings(BaseSettings):
    """The settings of one server. Values given here go before the environment."""

    model_config = SettingsConfigDict(
        env_prefix="ONBELAY_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    listen: str = "127.0.0.1:50051"
    """Address of the gRPC port. Port 0 takes a free one."""
    http: str | None = "127.0.0.1:8080"
    """Address of the HTTP port. None: no HTTP port."""
    http_hosts: Annotated[list[str], NoDecode] = []
    """Names, besides loopback, under which the HTTP port may be asked (its Host header)."""
    state_dir: Path = Field(default_factory=user_state_dir)
    """Folder of the developer token, the signing keys and, by default, database and artifacts."""
    # Its password must not be in a printed Settings.
    database: str = Field(default="", repr=False)
    """`sqlite:///…` or `postgresql://…`. Empty: `onbelay.db` in the state folder."""
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """SQLite's promise at commit. NORMAL may lose the last commits when power fails."""
    agents: Annotated[list[str], NoDecode] = []
    """`module:function` or `path.py:function` of agents to offer besides the installed ones."""
    tools: Annotated[list[str], NoDecode] = []
    """Modules whose registered tools agents may use."""
    tokens_file: Path | None = None
    """File of tenants, users, roles and digests of their tokens. None: a developer token."""
    tls_cert: Path | None = None
    """Certificate chain in PEM. Goes with tls_key."""
    tls_key: Path | None = None
    """Private key in PEM. Goes with tls_cert."""
    insecure: bool = False
    """Allow other addresses than loopback without TLS."""
    workers: int = Field(default=64, ge=1, le=10_000)
    """How many runs this process executes at once."""
    max_children: int = Field(default=8, ge=1, le=1_000)
    """How many child processes of agents live at once."""
    drain_seconds: float = Field(default=20, ge=0, le=3_600)
    """How long a drain waits for calls in flight."""
    lease_seconds: float = Field(default=30, ge=2, le=600)
    """How long a run stays with a worker that no longer renews."""
    retention_days: float | None = Field(default=30, gt=0)
    """How long finished runs are kept. None: for ever."""
    requests_days: float = Field(default=7, gt=0)
    """How long a request_id that belongs to no run is remembered."""
    max_artifact_bytes: int = Field(default=50 * 1024 * 1024, ge=1)
    """Size limit of one artifact."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What goes to the log on stderr at least."""
    log_json: bool = False
    """Log as JSON lines rather than for people."""

    @field_validator("http", "retention_days", mode="before")
    @classmethod
    def _off_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() in _OFF else value

    @field_validator("agents", "tools", "http_hosts", mode="before")
    @classmethod
    def _commas_separate(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("log_level", "synchronous", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("state_dir", "tokens_file", "tls_cert", "tls_key")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("listen", "http")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("database")
    @classmethod
    def _is_known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("give sqlite:///path or postgresql://user@host/name")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if not self.database:
            # The model is frozen for its readers; this is still its making.
            object.__setattr__(self, "database", f"sqlite:///{self.state_dir / DATABASE_FILE}")
        return self

    @property
    def token_path(self) -> Path:
        """Where the developer token is kept when there is no tokens file."""
        return self.state_dir / "developer-token"

    @property
    def operation_key_path(self) -> Path:
        """Where the key is kept that the tokens of operations are made with."""
        return self.state_dir / "operation-key"

    @property
    def page_key_path(self) -> Path:
        """Where the key is kept that page tokens are signed with."""
        return self.state_dir / "page-token-key"

    @property
    def blobs_dir(self) -> Path:
        """Where the bytes of artifacts are kept."""
        return self.state_dir / BLOBS_FOLDER

    @property
    def sqlite_path(self) -> Path | None:
        """The database's file; None when it is no SQLite file."""
        prefix = "sqlite:///"
        return Path(self.database[len(prefix) :]) if self.database.startswith(prefix) else None
