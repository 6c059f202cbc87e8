"""What the operator registered: agents, their schemas, tools."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest

from onbelay_agent.tool import tool
from onbelay_server.adapters.catalog import CatalogError, load_catalog
from onbelay_server.adapters.tools import RegisteredTools, ToolsError, load_tools
from onbelay_server.domain.agent import HarnessKind
from onbelay_server.domain.state import Risk
from onbelay_server.ports.tools import ToolError

CLEANUP = "onbelay_server.blueprints.data_cleanup:data_cleanup"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "registered_for_test.py"
    path.write_text(
        dedent(
            '''
            from __future__ import annotations

            from onbelay_agent import Context, agent, tool


            @tool(name="mail.send", risk="external_send")
            def send(to: str) -> str:
                """Sends."""
                return to


            @agent(tools=[send])
            async def greet_all(ctx: Context, name: str) -> str:
                """Greets everybody."""
                return name


            @agent
            def crunch(ctx: Context) -> int:
                return 1


            @agent(name="greet-all")
            async def same_name(ctx: Context) -> int:
                return 1
            '''
        )
    )
    return path


def test_an_agent_is_described_by_its_function(code: Path) -> None:
    catalog = load_catalog([f"{code}:greet_all", f"{code}:crunch"], with_installed=False)
    assert [one.name for one in catalog.list()] == ["crunch", "greet-all"]
    greet = catalog.get("greet-all")
    assert greet is not None
    assert greet.target == f"{code}:greet_all"
    assert (greet.harness, greet.is_blueprint) == (HarnessKind.PYTHON, False)
    assert greet.description == "Greets everybody."
    assert '"name"' in greet.input_schema_json
    assert (greet.tools, greet.highest_risk) == (("mail.send",), Risk.EXTERNAL_SEND)
    assert len(greet.fingerprint) == 64
    assert [one.name for one in catalog.tools] == ["mail.send"]
    crunch = catalog.get("crunch")
    assert crunch is not None
    assert crunch.harness is HarnessKind.CHILD
    assert catalog.get("nothing") is None


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module_here:agent", "cannot be imported"),
        ("json:dumps", "not an agent"),
        ("json", "not module:function"),
        ("/nowhere/agent.py:run", "not a file"),
        ("json:nothing", "has no"),
    ],
)
def test_a_wrong_target_is_named_in_one_line(target: str, words: str) -> None:
    with pytest.raises(CatalogError, match=words) as refused:
        load_catalog([target], with_installed=False)
    assert "\n" not in str(refused.value)


def test_two_agents_of_one_name_are_refused(code: Path) -> None:
    with pytest.raises(CatalogError, match="two agents are named greet-all"):
        load_catalog([f"{code}:greet_all", f"{code}:same_name"], with_installed=False)
    load_catalog([f"{code}:greet_all", f"{code}:greet_all"], with_installed=False)


def test_a_blueprint_is_described_without_loading_its_libraries() -> None:
    heavy = {"polars", "scipy", "matplotlib"}
    loaded_before = heavy & set(sys.modules)
    catalog = load_catalog([CLEANUP], with_installed=False)
    code = catalog.get("data-cleanup")
    assert code is not None
    assert (code.harness, code.is_blueprint, code.target) == (HarnessKind.CHILD, True, CLEANUP)
    assert "report.html" in code.expected_artifacts
    assert heavy & set(sys.modules) == loaded_before


# ---- tools ---------------------------------------------------------------------------------------


@tool(risk="write", idempotent=True)
def double(number: int) -> dict[str, object]:
    """Doubles."""
    return {"doubled": number * 2, "thread": threading.current_thread().name}


@tool
async def fails(why: str) -> None:
    raise RuntimeError(why)


@tool
async def waits(idempotency_key: str) -> str:
    await asyncio.Event().wait()
    return idempotency_key


async def test_tools_run_beside_the_servers_loop() -> None:
    tools = RegisteredTools([double, fails])
    known = tools.get("double")
    assert known is not None
    assert (known.risk, known.is_idempotent, known.description) == (Risk.WRITE, True, "Doubles.")
    assert [one.name for one in tools.list()] == ["double", "fails"]
    result = await tools.call("double", '{"number": 21}', idempotency_key="k")
    assert '"doubled":42' in result
    assert "MainThread" not in result
    await tools.close()


@pytest.mark.parametrize(
    ("name", "arguments", "type_", "words"),
    [
        ("fails", '{"why": "no"}', "ToolFailed", "RuntimeError: no"),
        ("double", '{"number": "x"}', "ToolFailed", "arguments do not fit"),
        ("nothing", "{}", "ToolDenied", "no tool"),
    ],
)
async def test_failures_are_told_to_the_agent(
    name: str, arguments: str, type_: str, words: str
) -> None:
    tools = RegisteredTools([double, fails])
    with pytest.raises(ToolError, match=words) as failed:
        await tools.call(name, arguments, idempotency_key="k")
    assert failed.value.type == type_
    await tools.close()


async def test_a_cancelled_call_ends_and_closing_ends_the_rest() -> None:
    tools = RegisteredTools([waits])
    calls = [
        asyncio.ensure_future(tools.call("waits", "{}", idempotency_key="k")) for _ in range(2)
    ]
    await asyncio.sleep(0)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    await tools.close()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]


def test_tools_of_modules_are_found(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code.parent))
    assert [one.name for one in load_tools(["registered_for_test"])] == ["mail.send"]
    with pytest.raises(ToolsError, match="has no tools"):
        load_tools(["json"])


def test_what_a_module_of_tools_raises_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_for_test.py").write_text("raise RuntimeError('no key\\nand more')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, words in (
        ("broken_for_test", "RuntimeError: no key"),
        ("no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'"),
    ):
        with pytest.raises(ToolsError) as refused:
            load_tools([name])
        assert str(refused.value) == f"{name} cannot be imported: {words}"


def test_two_tools_of_one_name_are_refused() -> None:
    @tool(name="double")
    def another() -> None:
        """Another."""

    with pytest.raises(ToolsError, match="two tools are named double"):
        RegisteredTools([double, another])
