"""How a use case answers a repeated request as it answered the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.ports.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A request that carries a request_id. A use case takes None for one that carries none."""

    key: RequestKey
    body_sha256: str
    """Over the RFC 8785 form of the request without its request_id."""

    def answered(self, rows: Rows) -> str | None:
        """What the first request of this id made, or None when this is the first.

        Raises RequestIdReused for another body. The unit must read `key`."""
        earlier = rows.request(self.key)
        return None if earlier is None else earlier.match(self.body_sha256)

    def remembered(self, result_id: str, now_us: int) -> Request:
        """The row that goes into the same unit as what the request made."""
        return Request(
            key=self.key, body_sha256=self.body_sha256, result_id=result_id, create_us=now_us
        )

    def once(
        self, rows: Rows, result_id: str, now_us: int, answer: T, change: Callable[[], Change[T]]
    ) -> Change[T]:
        """`change`, remembered; or, for a repeated request, nothing but the answer."""
        if self.answered(rows) is not None:
            return Change(result=answer)
        made = change()
        remembered = self.remembered(result_id, now_us)
        return Change(
            result=made.result,
            put=[*made.put, remembered],
            delete=made.delete,
            events=made.events,
        )

    async def recall(self, store: Store) -> str | None:
        """As `answered`, for a request that is not one unit."""

        def look(rows: Rows, now_us: int) -> Change[str | None]:
            return Change(result=self.answered(rows))

        return (await store.write(Reads(requests=[self.key]), look)).result

    async def remember(self, store: Store, result_id: str) -> str:
        """Remember, before anything of it is done, what a request that is not one unit will do;
        what stands when another call of this id was first. Raises RequestIdReused."""

        def keep(rows: Rows, now_us: int) -> Change[str]:
            earlier = self.answered(rows)
            if earlier is not None:
                return Change(result=earlier)
            return Change(result=result_id, put=[self.remembered(result_id, now_us)])

        return (await store.write(Reads(requests=[self.key]), keep)).result


def keys_of(idempotency: Idempotency | None) -> list[RequestKey]:
    """What a unit reads to know a repeated request: nothing for one without a request_id."""
    return [idempotency.key] if idempotency is not None else []
