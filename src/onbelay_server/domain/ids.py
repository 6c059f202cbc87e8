"""Ids that sort by the time they were made."""

from __future__ import annotations

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def make_id(prefix: str, now_us: int, entropy: bytes) -> str:
    """`prefix_` and 26 characters: 48 bits of milliseconds, 80 bits of `entropy` (10 bytes)."""
    number = ((now_us // 1000) & (2**48 - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    text = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))
    return f"{prefix}_{text}"
