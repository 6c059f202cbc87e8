"""Files of the run: those it was given and those it makes."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onbelay_agent import values
from onbelay_agent.errors import ArtifactFailed
from onbelay_agent.protocol import InputArtifact, Record

if TYPE_CHECKING:
    from onbelay_agent.context import Context


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that was saved."""

    id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str


class Artifacts:
    """`ctx.artifacts`. Bytes are kept by their SHA-256 before the call is recorded."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.inputs: tuple[InputArtifact, ...] = context._copy.start.input_artifacts
        """The files the run was started with."""

    def read(self, name: str) -> Coroutine[Any, Any, bytes]:
        """The bytes of an input or of a file saved earlier. Raises ArtifactFailed."""
        call = self._context._call("ARTIFACT_READ", "read", name, {"name": name}, _content)
        return self._context._wait(call)

    def save(
        self, name: str, data: bytes | str, media_type: str = ""
    ) -> Coroutine[Any, Any, Artifact]:
        """Keep a file under `name`; text is written as UTF-8. Saved once, however often it runs.

        `media_type` defaults to what the name's ending says. Raises ArtifactFailed."""
        if isinstance(data, str):
            values.require_unicode(data)
            data = data.encode()
        elif not isinstance(data, bytes):
            data = bytes(memoryview(data))
        sha256, size_bytes = hashlib.sha256(data).hexdigest(), len(data)
        media_type = media_type or _guessed(name)
        request = {
            "name": name,
            "media_type": media_type,
            "sha256": sha256,
            "size_bytes": size_bytes,
        }

        def saved(record: Record, blob: bytes | None) -> Artifact:
            described = values.decode(record.ok_json or "{}")
            if not isinstance(described, dict):
                described = {}
            artifact_id = described.get("artifact_id", described.get("id", ""))
            return Artifact(str(artifact_id), name, media_type, size_bytes, sha256)

        call = self._context._call("ARTIFACT_SAVE", "save", name, request, saved, upload=data)
        return self._context._wait(call)


def _content(record: Record, blob: bytes | None) -> bytes:
    if blob is None:
        raise ArtifactFailed("the artifact has no content")
    return blob


def _guessed(name: str) -> str:
    """From a fixed table: what a machine's own table says may differ where the run is replayed."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return _MEDIA_TYPES.get(ending, "application/octet-stream")


_MEDIA_TYPES = {
    "csv": "text/csv",
    "gif": "image/gif",
    "htm": "text/html",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "zip": "application/zip",
}
