"""One run of the bench: its sizes, its servers, and what it says while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onbelay_server.bench.processes import Server, measured, service

ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every row is measured with."""

    reference: Server
    say: Callable[[str], None]
    is_quick: bool = False
    rounds: int = ROUNDS
    postgres: str | None = None
    dbos_python: Path | None = None
    """An interpreter that has the package `dbos`."""
    profile: Path | None = None
    """Where the service's profile goes; only the variant full is measured then."""

    def size(self, usual: int, quick: int) -> int:
        """How much to measure."""
        return quick if self.is_quick else usual

    @property
    def variants(self) -> Sequence[str]:
        """The kinds of store, the default one first."""
        if self.profile is not None:
            return ("full",)
        return ("full", "normal", *(("postgres",) if self.postgres else ()))

    @contextmanager
    def services(
        self, *variants: str, workers: int = 64, module: str = "onbelay_server"
    ) -> Iterator[dict[str, Server]]:
        """The service once for each variant, run as `module`, until the block ends."""
        with ExitStack() as stack:
            yield {
                variant: stack.enter_context(
                    service(
                        variant,
                        workers=workers,
                        postgres=self.postgres,
                        profile=self.profile,
                        module=module,
                    )
                )
                for variant in variants
            }

    def sample(self, row: str, what: str, server: Server, job: str, **order: Any) -> dict[str, Any]:
        """One measurement by a client of its own. Raises BenchFailed."""
        answer = measured(server, job, **order)
        told = [
            f"{key} {_told(one)}" for key, one in answer.items() if isinstance(one, int | float)
        ]
        self.say(f"{row} {what}: {', '.join(told)}")
        return answer


def _told(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
