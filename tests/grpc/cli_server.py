"""A server for tests of the command line, and the command line run in this process."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from onbelay_server.cli.application import main
from onbelay_server.cli.embedded import EmbeddedServer, private_settings
from tests.checker import judge
from tests.grpc.spine_server import final_of
from tests.recorder import Recording

AGENTS = '''
from onbelay_agent import Context, Rejected, agent


@agent
async def greeter(ctx: Context, name: str) -> str:
    """Greets."""
    ctx.emit(f"Looking at {name}\\n")
    ctx.progress(1, 2, "half")
    return f"Hello {name}"


@agent
async def breaker(ctx: Context) -> str:
    """Fails."""
    raise ValueError("the disk is full")


@agent
async def asker(ctx: Context) -> str:
    """Asks for a yes."""
    try:
        said = await ctx.approve("Send the letter?", "It is **final**.", evidence={"pages": 2})
    except Rejected as no:
        return f"rejected by {no.by}: {no.comment}"
    return f"approved by {said.by}"


@agent
async def questioner(ctx: Context) -> int:
    """Asks for a number."""
    return await ctx.ask("How many?", int) + 1


@agent
async def sleeper(ctx: Context) -> str:
    """Sleeps for a day of durable time."""
    await ctx.sleep(86_400)
    return "rested"


@agent
async def copier(ctx: Context) -> int:
    """Saves what it is given under another name."""
    content = await ctx.artifacts.read("in.txt")
    await ctx.artifacts.save("folder/out.txt", content.upper(), media_type="text/plain")
    return len(content)
'''
NAMES = ("greeter", "breaker", "asker", "questioner", "sleeper", "copier")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


class _Bytes(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


def onbelay(*arguments: str, stdin: str = "", **environment: str) -> Ended:
    """Run the command line as `main` does; nothing of ONBELAY_… but `environment` reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONBELAY_")}
    out, err = _Bytes(), _Bytes()
    code = 0
    with (
        mock.patch.dict(os.environ, kept | {"ONBELAY_DEBUG": ""} | environment, clear=True),
        mock.patch.object(sys, "argv", ["onbelay", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, out.text(), err.text())


@dataclass(frozen=True, slots=True)
class CliServer:
    """A running server and its folder."""

    address: str
    token: str
    state_dir: Path

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        """Run a command against it."""
        return onbelay(
            *arguments, stdin=stdin, ONBELAY_SERVER=self.address, ONBELAY_API_KEY=self.token
        )


@contextmanager
def cli_server(folder: Path) -> Iterator[CliServer]:
    """A server that offers the agents above, judged like every other."""
    file = folder / "cli_agents.py"
    file.write_text(AGENTS, encoding="utf-8")
    with judged_cli_server(folder / "state", [f"{file}:{name}" for name in NAMES]) as server:
        yield server


@contextmanager
def judged_cli_server(state_dir: Path, agents: list[str]) -> Iterator[CliServer]:
    """A server whose database is judged once it has ended. What commands sent and received is not
    recorded: they are judged by what they print."""
    with EmbeddedServer(private_settings(state_dir, agents)) as serving:
        assert serving.token is not None
        yield CliServer(serving.grpc_address, serving.token, state_dir)
    broken = judge(Recording(), asyncio.run(final_of(f"sqlite:///{state_dir / 'onbelay.db'}")))
    assert not broken, "\n".join(broken[:20])
