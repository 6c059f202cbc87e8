"""What is said to the database about logs: pages, frames, and how far each is sealed."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from onbelay_server.adapters.sql.database import Sql, Statement
from onbelay_server.adapters.sql.enlisting import enlist_text
from onbelay_server.adapters.sql.listings import MOST, Condition, Select, numbered, text_
from onbelay_server.adapters.sql.prepared import Shapes, bound
from onbelay_server.adapters.sql.tables import (
    FINISHED,
    removals,
    run_events,
    runs,
    sealings,
    segments,
)
from onbelay_server.ports.store import LONG_LOG_EVENTS

_AFTER = bound("after", sa.Integer)
_THROUGH = bound("through", sa.Integer)


class LogQueries:
    """Statements about logs, in the words of one kind of database."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._shapes = Shapes(sql.dialect)
        self._enlist = enlist_text(sql)

    def events(
        self,
        run_id: str,
        *,
        after: int,
        limit: int,
        kinds: Sequence[int] = (),
        except_kinds: Sequence[int] = (),
        through: int | None = None,
    ) -> Statement:
        """Sequence, kind and body, in order; nothing of a run that is being removed."""
        shape = (len(kinds), len(except_kinds), through is not None)
        made = self._shapes.of(("events", *shape), lambda: _events(*shape))
        values = numbered("kind", kinds) | numbered("except", except_kinds)
        return made(**values, run_id=run_id, after=after, through=through, most=limit)

    def frames(self, run_id: str, *, after: int, limit: int) -> Statement:
        """First and last sequence and frame: of the segment that holds what follows `after`, and
        of those behind it."""

        def build() -> Select:
            column, earlier = segments.c, segments.alias()
            holder = (
                sa.select(sa.func.max(earlier.c.first_sequence))
                .where(earlier.c.run_id == text_("run_id"), earlier.c.first_sequence <= _AFTER + 1)
                .scalar_subquery()
            )
            return (
                sa.select(column.first_sequence, column.last_sequence, column.frame)
                .where(
                    column.run_id == text_("run_id"),
                    column.first_sequence >= holder,
                    column.last_sequence > _AFTER,
                    _is_kept(),
                )
                .order_by(column.first_sequence)
                .limit(MOST)
            )

        return self._shapes.of("frames", build)(run_id=run_id, after=after, most=limit)

    def unsealed(self, limit: int) -> Statement:
        """Ids of runs whose log wants sealing now."""

        def build() -> Select:
            behind = runs.c.last_sequence > sealings.c.last_sequence + LONG_LOG_EVENTS
            joined = sa.select(sealings.c.run_id).join(runs, runs.c.id == sealings.c.run_id)
            wanted = sa.or_(sa.and_(FINISHED), behind)
            return joined.where(wanted).order_by(sealings.c.run_id).limit(MOST)

        return self._shapes.of("unsealed", build)(most=limit)

    def enlist(self, run_ids: Sequence[str]) -> Statement:
        return Statement(self._enlist, self._sql.keys([runs.c.id], [(name,) for name in run_ids]))

    def sealed(self, run_id: str) -> Statement:
        column = sealings.c
        made = self._shapes.of(
            "sealed",
            lambda: sa.select(column.last_sequence).where(column.run_id == text_("run_id")),
        )
        return made(run_id=run_id)

    def advance(self, run_id: str, after: int, through: int) -> Statement:
        """Moves the mark on from `after`; a row when that was where it stood."""
        column = sealings.c
        made = self._shapes.of(
            "advance",
            lambda: (
                sa.update(sealings)
                .where(column.run_id == text_("which"), column.last_sequence == _AFTER)
                .values(last_sequence=_THROUGH)
                .returning(column.run_id)
            ),
        )
        return made(which=run_id, after=after, through=through)

    def delist(self, run_id: str) -> Statement:
        """Forgets a log that is sealed to its end."""

        def build() -> sa.sql.ClauseElement:
            end = sa.select(runs.c.last_sequence).where(runs.c.id == text_("run_id"))
            column = sealings.c
            return sa.delete(sealings).where(
                column.run_id == text_("run_id"), column.last_sequence == end.scalar_subquery()
            )

        return self._shapes.of("delist", build)(run_id=run_id)

    def marked(self) -> Statement:
        """A run whose log is to be removed."""
        return self._shapes.of("marked", lambda: sa.select(removals.c.run_id).limit(MOST))(most=1)

    def event_sizes(self, run_id: str, limit: int) -> Statement:
        return self._sizes(run_events, run_events.c.sequence, run_events.c.body, run_id, limit)

    def segment_sizes(self, run_id: str, limit: int) -> Statement:
        return self._sizes(segments, segments.c.first_sequence, segments.c.frame, run_id, limit)

    def _sizes(
        self,
        table: sa.Table,
        place: sa.Column[int],
        body: sa.Column[bytes],
        run_id: str,
        limit: int,
    ) -> Statement:
        def build() -> Select:
            sizes = sa.select(place, sa.func.length(body))
            return sizes.where(table.c.run_id == text_("run_id")).order_by(place).limit(MOST)

        return self._shapes.of(("sizes", table.name), build)(run_id=run_id, most=limit)

    def drop_events(self, run_id: str, through: int) -> Statement:
        return self._drop(run_events, run_events.c.sequence, run_id, through)

    def drop_segments(self, run_id: str, through: int) -> Statement:
        return self._drop(segments, segments.c.first_sequence, run_id, through)

    def _drop(self, table: sa.Table, place: sa.Column[int], run_id: str, through: int) -> Statement:
        made = self._shapes.of(
            ("drop", table.name),
            lambda: sa.delete(table).where(table.c.run_id == text_("run_id"), place <= _THROUGH),
        )
        return made(run_id=run_id, through=through)

    def unmark(self, run_id: str) -> Statement:
        made = self._shapes.of(
            "unmark", lambda: sa.delete(removals).where(removals.c.run_id == text_("run_id"))
        )
        return made(run_id=run_id)


def _is_kept() -> Condition:
    return sa.not_(sa.exists(sa.select(1).where(removals.c.run_id == text_("run_id"))))


def _events(kinds: int, except_kinds: int, has_through: bool) -> Select:
    column = run_events.c
    found = (
        sa.select(column.sequence, column.kind, column.body)
        .where(column.run_id == text_("run_id"), column.sequence > _AFTER, _is_kept())
        .order_by(column.sequence)
        .limit(MOST)
    )
    if kinds:
        found = found.where(sa.or_(*_each(column.kind, "kind", kinds)))
    if except_kinds:
        found = found.where(sa.not_(sa.or_(*_each(column.kind, "except", except_kinds))))
    if has_through:
        found = found.where(column.sequence <= _THROUGH)
    return found


def _each(column: sa.Column[int], name: str, count: int) -> list[Condition]:
    return [column == bound(f"{name}_{at}", sa.Integer) for at in range(count)]
