"""Files of runs, and files waiting to become the input of one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file's row; its bytes are kept by their SHA-256 elsewhere and never change."""

    id: str
    tenant: str
    owner: str
    """The principal it was uploaded by, or the starter of the run that saved it."""
    run_id: str | None
    """None while it is an upload for a later StartRun."""
    step_id: str = ""
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    create_us: int
    expire_us: int | None = None
    """Uploads only: when it goes unless a run took it."""
