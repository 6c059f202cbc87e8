"""One measured figure: its samples, what they are compared with, and the target."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure's ratio (or the figure itself, without a limit) must reach."""

    bound: float
    is_most: bool = False
    """The bound is the most allowed, not the least."""

    def __str__(self) -> str:
        return f"{'≤' if self.is_most else '≥'} {self.bound:,g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure of one row, for one kind of store."""

    row: str
    variant: str
    """full, normal, postgres; or the size, in curves."""
    what: str
    unit: str
    samples: Sequence[float]
    limit: str = ""
    """What it is divided by."""
    limit_samples: Sequence[float] = ()
    target: Target | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The median; None when nothing was measured."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def limit_value(self) -> float | None:
        return statistics.median(self.limit_samples) if self.limit_samples else None

    @property
    def ratio(self) -> float | None:
        if self.value is None or not self.limit_value:
            return None
        return self.value / self.limit_value

    @property
    def is_met(self) -> bool | None:
        """None without a target or a measurement."""
        judged = self.ratio if self.limit else self.value
        if self.target is None or judged is None:
            return None
        return judged <= self.target.bound if self.target.is_most else judged >= self.target.bound

    def as_json(self) -> dict[str, Any]:
        """For programs: everything, samples included."""
        return {
            "row": self.row,
            "variant": self.variant,
            "what": self.what,
            "unit": self.unit,
            "value": self.value,
            "samples": list(self.samples),
            "limit": self.limit or None,
            "limit_value": self.limit_value,
            "limit_samples": list(self.limit_samples),
            "ratio": self.ratio,
            "target": None if self.target is None else self.target.bound,
            "target_is_most": None if self.target is None else self.target.is_most,
            "met": self.is_met,
            "details": self.details,
        }
