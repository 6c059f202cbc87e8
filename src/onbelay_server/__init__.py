"""The Onbelay service: durable agent runs behind gRPC."""

from __future__ import annotations

import os

# gRPC's fork handlers run in every child that uvloop forks, where its threads do not exist, and
# children died of it before they began. Nothing here forks without an exec. It must be said before
# grpc is imported by anybody.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
