"""Events as bytes of the wire contract."""

from __future__ import annotations

from onbelay_server.adapters.codec.event_codec import ProtoEventCodec

__all__ = ["ProtoEventCodec"]
