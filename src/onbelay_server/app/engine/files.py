"""The files a run reads and saves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onbelay_server.app.engine.batch import Batch
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.event import ArtifactSaved, StepError, StepFinished
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.run import Run


class Files:
    """Records what is read and saved."""

    def __init__(self, run: Run, named: Mapping[str, Artifact], kept: Mapping[str, int]) -> None:
        """`named`: what the run may read, by the name it knows it by. `kept`: the size of every
        blob it has put, by SHA-256. Both are looked at when a call is written."""
        self._run = run
        self._named = named
        self._kept = kept

    def read(self, batch: Batch, step_id: str, name: str) -> None:
        """`ctx.artifacts.read`: the record says which bytes; they travel beside it."""
        artifact = self._named.get(name)
        if artifact is None:
            _fail(batch, step_id, f"the run has no file {name!r}")
            return
        described = {
            "artifact_id": artifact.id,
            "name": name,
            "media_type": artifact.media_type,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
        }
        batch.add(StepFinished(result_json=json.dumps(described)), step_id)

    def save(
        self, batch: Batch, step_id: str, request: dict[str, Any], entropy: bytes, now_us: int
    ) -> None:
        """`ctx.artifacts.save`: bytes that were put before become a file of the run."""
        if request["sha256"] not in self._kept:
            _fail(batch, step_id, "the file's bytes were not handed over")
            return
        artifact = self._made(
            step_id, request["name"], request["media_type"], request["sha256"], entropy, now_us
        )
        batch.put.append(artifact)
        saved = ArtifactSaved(
            artifact_id=artifact.id,
            name=artifact.name,
            media_type=artifact.media_type,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
        )
        batch.add(saved, step_id)

    def keep(self, batch: Batch, place: str, sha256: str, entropy: bytes, now_us: int) -> str:
        """A nameless artifact for a value too large for the log; its id."""
        artifact = self._made(place, "", "application/json", sha256, entropy, now_us)
        batch.put.append(artifact)
        return artifact.id

    def _made(
        self, place: str, name: str, media_type: str, sha256: str, entropy: bytes, now_us: int
    ) -> Artifact:
        run = self._run
        return Artifact(
            id=make_id("art", now_us, entropy),
            tenant=run.tenant,
            owner=run.starter,
            run_id=run.id,
            step_id=place,
            name=name,
            media_type=media_type,
            size_bytes=self._kept[sha256],
            sha256=sha256,
            create_us=now_us,
        )


def _fail(batch: Batch, step_id: str, message: str) -> None:
    batch.add(StepFinished(error=StepError(type="StepFailed", message=message)), step_id)
