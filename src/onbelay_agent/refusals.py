"""The methods of an event loop that agent code may not use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from onbelay_agent.errors import RefusedCall

_REFUSED = """
run_in_executor set_default_executor shutdown_default_executor
set_task_factory run_forever run_until_complete stop close shutdown_asyncgens
getaddrinfo getnameinfo create_connection create_server create_unix_connection create_unix_server
create_datagram_endpoint connect_accepted_socket start_tls sendfile subprocess_shell
subprocess_exec connect_read_pipe connect_write_pipe add_reader remove_reader add_writer
remove_writer sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto
sock_connect sock_accept sock_sendfile add_signal_handler remove_signal_handler
"""


def refuse_in(loop_class: type[asyncio.AbstractEventLoop]) -> None:
    """Give the class a method for each of them that raises RefusedCall with its name."""
    for name in _REFUSED.split():
        setattr(loop_class, name, _refusal(name))


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise RefusedCall(f"loop.{name} is refused in agent code: put it in a step")

    refuse.__name__ = name
    refuse.__doc__ = "Refused in agent code."
    return refuse
