"""Statements compiled once: what changes from call to call is bound by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from onbelay_server.adapters.sql.database import Statement

MOST_SHAPES = 512
"""Compiled statements that are kept: a filter has as many shapes as combinations of its fields."""

Built = Callable[[], sa.sql.ClauseElement]


@lru_cache(maxsize=1024)
def bound(name: str, kind: type[Any]) -> sa.BindParameter[Any]:
    """A value that each call gives; `kind` is its SQL type."""
    return sa.bindparam(name, type_=kind(), required=False)


class Prepared:
    """One compiled statement. Calling it with every bound value by name makes a Statement."""

    __slots__ = ("_constants", "_order", "_sql")

    def __init__(self, built: sa.sql.ClauseElement, dialect: Dialect) -> None:
        compiled: Any = built.compile(dialect=dialect)
        self._sql = str(compiled)
        self._constants: dict[str, object] = dict(compiled.params)
        self._order: list[str] = list(compiled.positiontup or ())

    def __call__(self, **values: object) -> Statement:
        given = self._constants | values
        return Statement(self._sql, [given[name] for name in self._order])


class Shapes:
    """Prepared statements by the shape of the question, made when a shape first comes up."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: OrderedDict[Hashable, Prepared] = OrderedDict()

    def of(self, shape: Hashable, build: Built) -> Prepared:
        """The statement of this shape; `build` makes it when it is new."""
        known = self._known.get(shape)
        if known is None:
            known = self._known[shape] = Prepared(build(), self._dialect)
            if len(self._known) > MOST_SHAPES:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(shape)
        return known
