"""What ends a child and all of its group when the server dies, whatever they are busy with."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from contextlib import suppress


class Lifeline:
    """A pipe that nothing is written to. Its one writer is this process; the child holds the other
    end. When this process is gone, however it went, Linux itself sends the group SIGKILL.

    A child sees the end of its pipes too, but not from inside code that keeps the interpreter, and
    a signal at the parent's death (PR_SET_PDEATHSIG) would leave what the child has started. Where
    there is no F_SETSIG, the end of its pipes is all a child has.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self.child_end, self._our_end = os.pipe()

    def tie(self, group: int) -> None:
        """The process group that is not to outlive this process. Its leader has the pipe by now."""
        if sys.platform == "linux":
            with suppress(OSError):  # it has ended already, or the kernel has no such thing
                fcntl.fcntl(self.child_end, fcntl.F_SETSIG, signal.SIGKILL)
                fcntl.fcntl(self.child_end, fcntl.F_SETOWN, -group)
                fcntl.fcntl(self.child_end, fcntl.F_SETFL, os.O_ASYNC)
        os.close(self.child_end)
        self.child_end = -1

    def cut(self) -> None:
        """Nothing of the group is left, or nothing is to be."""
        for end in (self.child_end, self._our_end):
            if end >= 0:
                os.close(end)
        self.child_end = self._our_end = -1
