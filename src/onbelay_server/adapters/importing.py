"""Importing the operator's modules: whatever one raises, the operator reads it in one line."""

from __future__ import annotations

import importlib
from types import ModuleType


def imported(name: str, refusal: type[Exception]) -> ModuleType:
    """The module of that name. Raises `refusal` with one line for what it raises itself."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        words = ": ".join(part for part in (type(error).__name__, first_line(error)) if part)
        raise refusal(f"{name} cannot be imported: {words}") from error


def first_line(error: Exception) -> str:
    """The first line of what an error says; empty when it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")
