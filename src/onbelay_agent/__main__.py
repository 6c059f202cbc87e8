"""`python -m onbelay_agent module:function`: one copy of a run, over this process's pipes.

Frames take file descriptor 1 for themselves; what the agent prints goes to standard error, and
standard input is empty for it. `--describe` prints the agent's definition as JSON instead.
Exit codes: 0 after Ended was sent, 2 when there is no such agent, 70 when the host is gone (the
leader of a session ends by SIGKILL then, with its group).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import traceback
from typing import BinaryIO

from onbelay_agent.copy import Copy
from onbelay_agent.definition import AgentDefinition, load
from onbelay_agent.errors import AgentNotLoaded
from onbelay_agent.stdio import EXIT_ENDED, EXIT_NO_AGENT, PipeHost, exit_without_host


def main() -> int:
    """Run one copy, or describe the agent."""
    parser = argparse.ArgumentParser(prog="python -m onbelay_agent", description=__doc__)
    parser.add_argument("target", help="module:function or path/file.py:function")
    parser.add_argument("--describe", action="store_true", help="print the definition and exit")
    options = parser.parse_args()
    reader, writer = _taken_pipes()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        definition = load(options.target)
    except AgentNotLoaded as error:
        print(f"onbelay: {error}", file=sys.stderr)
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return EXIT_NO_AGENT
    if options.describe:
        writer.write(json.dumps(definition.describe(), ensure_ascii=False).encode() + b"\n")
        writer.flush()
        return EXIT_ENDED
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    asyncio.run(_run(definition, reader, writer))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads the agent left behind must not keep the process.
    os._exit(EXIT_ENDED)


async def _run(definition: AgentDefinition, reader: BinaryIO, writer: BinaryIO) -> None:
    host = PipeHost(reader, writer, exit_without_host)
    copy = Copy(definition, host, asyncio.get_running_loop())
    host.deliver_to(copy.receive)
    await host.flushed.wait()


def _taken_pipes() -> tuple[BinaryIO, BinaryIO]:
    """This process's pipes for frames alone: prints go to standard error, reads find nothing."""
    frames_in, frames_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.flush()
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(frames_in, "rb"), os.fdopen(frames_out, "wb")


if __name__ == "__main__":
    sys.exit(main())
