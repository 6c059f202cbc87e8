"""How calls are asked for: their place, their request, their result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from onbelay_agent import values
from onbelay_agent.branch import Branch
from onbelay_agent.call import Call
from onbelay_agent.errors import RefusedCall, ValueNotStorable
from onbelay_agent.protocol import MAX_INLINE_BYTES, CallKind, Record
from onbelay_agent.work import INSIDE

if TYPE_CHECKING:
    from onbelay_agent.copy import Copy

_LONGEST_NAME = 200
_METHODS = {
    "approval": "approve",
    "child": "start_agent",
    "join": "start_agent(…).result",
    "outcome": "operation(…).result",
    "question": "ask",
    "read": "artifacts.read",
    "save": "artifacts.save",
}
"""What authors call it, where the id says otherwise."""


class Asking:
    """Asks in the name of one copy. The context inherits it, so nothing here is public."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy

    def _call(
        self,
        kind: CallKind,
        slug: str,
        name: str,
        request: Mapping[str, Any],
        decode: Callable[[Record, bytes | None], Any] | None,
        upload: bytes | None = None,
    ) -> Call:
        """A call whose request the host acts on; it has its place from here on.

        Raises ValueNotStorable when the request is no JSON or larger than 256 KB."""
        branch = self._place(slug)
        try:
            request_json = values.canonical(request)
        except ValueNotStorable as error:
            raise ValueNotStorable(f"{slug} {name!r}: {error}") from None
        content = request_json.encode()
        if len(content) > MAX_INLINE_BYTES:
            raise ValueNotStorable(f"{slug} {name!r}: more than 256 KB asked: save an artifact")
        return Call(
            branch.next_id(slug, named(name)),
            kind,
            name,
            hashlib.sha256(content).hexdigest(),
            request_json,
            decode=decode,
            upload=upload,
        )

    def _wait(self, call: Call) -> Coroutine[Any, Any, Any]:
        """Ask for a call made by `_call` and wait for its result."""
        return self._copy.wait(call)

    def _place(self, what: str) -> Branch:
        inside = INSIDE.get()
        if inside is not None:
            what = _METHODS.get(what, what)
            raise RefusedCall(f"ctx.{what} cannot be used inside a step's function")
        return self._copy.branch()


def text_of(record: Record, blob: bytes | None) -> str:
    """The JSON of a result."""
    return blob.decode() if blob is not None else (record.ok_json or "null")


def decoded(record: Record, blob: bytes | None) -> Any:
    """A result as plain JSON."""
    return values.decode(text_of(record, blob))


def plain(value: Any) -> Any:
    """A value as plain JSON. Raises ValueNotStorable."""
    return values.decode(values.canonical(value))


def named(name: str) -> str:
    """The name, if it is one. Raises ValueError, as ValueNotStorable where it is not Unicode."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise ValueError(f"a name has 1 to {_LONGEST_NAME} characters")
    try:
        values.require_unicode(name)
    except ValueNotStorable as error:
        raise ValueNotStorable(f"the name {name!r}: {error}") from None
    return name
