"""Secrets of this server in its state folder, readable by its own user only."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path


class SecretFileError(Exception):
    """A secret that must not be used as it lies there; the text is one line for the operator."""


def load_secret(path: Path, make: Callable[[], str]) -> str:
    """The text kept in `path`, made and kept on first use. Two processes that start at once get the
    same one. Raises SecretFileError when others can read it or when it is empty."""
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path, make())
        return _read(path)


def load_signing_key(path: Path) -> bytes:
    """32 random bytes kept in `path` as hex, made on first use. Raises SecretFileError."""
    text = load_secret(path, lambda: secrets.token_hex(32))
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SecretFileError(f"{path} does not hold a key of 32 bytes in hex: remove it")
    return key


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        mode = os.fstat(file.fileno()).st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise SecretFileError(f"{path} can be used by others: chmod 600 it, or remove it")
        text = file.read().strip()
    if not text:
        raise SecretFileError(f"{path} is empty: remove it")
    return text


def _create(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link appears whole or not at all, and never replaces what another process made.
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
