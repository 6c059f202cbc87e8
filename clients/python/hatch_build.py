"""Build hook: puts the generated packages into the client's distribution.

They live in `gen/python`, outside this project's folder. A wheel carries them under their import
names; a source archive carries them under `generated/`, from where a later wheel takes them. An
editable install copies nothing: it finds them on its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# `onbelay` and `buf` are namespace packages: only what is below them belongs to this distribution.
PACKAGES = ("onbelay/v1", "buf/validate")


class GeneratedPackages(BuildHookInterface[Any]):
    """Adds PACKAGES to a wheel or a source archive."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to add; hatchling raises FileNotFoundError when one is missing."""
        if version == "editable":
            return
        archived = Path(self.root) / "generated"
        source = archived if archived.is_dir() else Path(self.root).parents[1] / "gen" / "python"
        prefix = "generated/" if self.target_name == "sdist" else ""
        for package in PACKAGES:
            build_data["force_include"][str(source / package)] = prefix + package
