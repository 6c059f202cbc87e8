"""Opening a channel: address, encryption, keep-alive."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import grpc

# The server allows pings every 10 seconds; a margin keeps jitter from looking like abuse.
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # Retries are the caller's own: it knows which calls are harmless to repeat.
    ("grpc.enable_retries", 0),
    # A server that was restarted should be found again within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_PLAIN = ("grpc", "http")
_ENCRYPTED = ("grpcs", "https")


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def open_channel(server: str, *, ca_cert: Path | str | None = None) -> grpc.Channel:
    """A channel to `host:port`, `grpc://host:port` (never TLS) or `grpcs://host:port` (always).

    Without a scheme the own machine is spoken to in plain text and every other with TLS, so that a
    credential leaves the machine unencrypted only when somebody wrote `grpc://`. `ca_cert` names
    a PEM file to trust instead of the system's. Raises ValueError for an unusable address and
    OSError when the file cannot be read. Connects at the first call, not here.
    """
    scheme, has_scheme, address = server.rpartition("://")
    address = address.rstrip("/")
    host, colon, port = address.rpartition(":")
    if has_scheme and scheme not in _PLAIN + _ENCRYPTED:
        raise ValueError(f"unknown scheme {scheme}://; use grpc:// or grpcs://")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"{server!r} is no address of the form host:port")
    encrypted = scheme in _ENCRYPTED if has_scheme else ca_cert is not None or not is_loopback(host)
    if not encrypted:
        return grpc.insecure_channel(address, options=_OPTIONS)
    roots = Path(ca_cert).read_bytes() if ca_cert is not None else None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)
