"""What reaches outside is refused in agent code, whichever library does it.

Python tells audit hooks of every thread, socket and process before it is made. Ours refuses them
while agent code runs on its own loop, and lets everything else pass: steps, the host, and code that
has nothing to do with agents.
"""

from __future__ import annotations

import functools
import sys
import threading
from asyncio import events
from collections.abc import Callable
from typing import Any

from onbelay_agent.errors import RefusedCall
from onbelay_agent.loop import RunLoop

_REFUSED = {
    "_thread.start_new_thread": "starting a thread",
    "_thread.start_joinable_thread": "starting a thread",
    "os.exec": "a new program",
    "os.fork": "a new process",
    "os.forkpty": "a new process",
    "os.posix_spawn": "a new process",
    "os.spawn": "a new process",
    "os.system": "a new process",
    "socket.bind": "a socket",
    "socket.connect": "a connection",
    "socket.getaddrinfo": "a name lookup",
    "socket.gethostbyname": "a name lookup",
    "socket.sendmsg": "a socket",
    "socket.sendto": "a socket",
    "subprocess.Popen": "a new process",
}


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _REFUSED and type(events._get_running_loop()) is RunLoop:
        raise RefusedCall(f"{_REFUSED[event]} ({event}) is refused in agent code: put it in a step")


@functools.cache
def refuse_threads() -> None:
    """From now on, in this process. Repeating it is harmless."""
    sys.addaudithook(_hear)
    if sys.version_info < (3, 12):
        # It tells nobody of threads.
        setattr(threading.Thread, "start", _asking_first(threading.Thread.start))  # noqa: B010


def _asking_first(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @functools.wraps(start)
    def asking(thread: threading.Thread) -> None:
        _hear("_thread.start_new_thread", ())
        start(thread)

    return asking
