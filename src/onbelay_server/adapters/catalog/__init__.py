"""Finds the agents' code that is installed or named by the operator."""

from __future__ import annotations

from onbelay_server.adapters.catalog.code_catalog import CodeCatalog
from onbelay_server.adapters.catalog.loading import ENTRY_POINTS, CatalogError, load_catalog

__all__ = ["ENTRY_POINTS", "CatalogError", "CodeCatalog", "load_catalog"]
