"""Making, changing, listing and deleting agents."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from onbelay_server.app.agent_rules import AgentDraft, hindrance
from onbelay_server.app.agents import AgentView
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.domain.agent import AgentRevision, AgentSource, HarnessKind
from onbelay_server.domain.error import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RequestIdReused,
)
from onbelay_server.domain.request import RequestKey
from onbelay_server.domain.state import RunState
from tests.resources import ADA, ADMIN, BEN, HELLO, RIVAL, TABLES, House


@pytest.fixture
def house() -> House:
    return House()


def draft(name: str = "mine", **settings: object) -> AgentDraft:
    made = AgentRevision(
        agent_id="", revision=0, create_us=0, created_by="", harness=HarnessKind.MODEL
    )
    return AgentDraft(name=name, settings=replace(made, **settings))  # type: ignore[arg-type]


def once(request_id: str, body: str = "b", method: str = "m") -> Idempotency:
    return Idempotency(RequestKey(ADA.tenant, ADA.id, method, request_id), body)


def described(text: str) -> object:
    return lambda view: AgentDraft(
        name=view.agent.name, settings=replace(view.revision, description=text)
    )


async def change(house: House, view: AgentView, text: str, **more: object) -> AgentView:
    return await house.agents.update(
        more.pop("caller", ADA),  # type: ignore[arg-type]
        view.agent.id,
        described(text),  # type: ignore[arg-type]
        etag=more.pop("etag", ""),  # type: ignore[arg-type]
        idempotency=more.pop("idempotency", None),  # type: ignore[arg-type]
    )


async def test_created_agents_are_found_by_id_and_name(house: House) -> None:
    made = await house.agents.create(ADA, draft(), None)
    assert made.agent.id.startswith("agt_")
    assert (made.agent.revision, made.revision.revision) == (1, 1)
    assert made.agent.owner == ADA.id
    for key in (made.agent.id, "mine"):
        assert await house.agents.get(BEN, key, None) == made


async def test_names_are_unique_in_their_tenant_only(house: House) -> None:
    await house.agents.create(ADA, draft(), None)
    with pytest.raises(AlreadyExists) as refused:
        await house.agents.create(BEN, draft(), None)
    assert (refused.value.reason, refused.value.metadata) == ("NAME_TAKEN", {"name": "mine"})
    await house.agents.create(RIVAL, draft(), None)


async def test_a_hundred_equal_requests_make_one_agent(house: House) -> None:
    repeats = [house.agents.create(ADA, draft(), once("r1")) for _ in range(100)]
    assert len({view.agent.id for view in await asyncio.gather(*repeats)}) == 1
    with pytest.raises(RequestIdReused):
        await house.agents.create(ADA, draft("other"), once("r1", "other body"))


async def test_other_tenants_agents_do_not_exist(house: House) -> None:
    made = await house.agents.create(ADA, draft(), None)
    texts = set()
    for key in (made.agent.id, "mine", "agt_unknown", "unknown"):
        with pytest.raises(NotFound) as refused:
            await house.agents.get(RIVAL, key, None)
        texts.add((refused.value.text, tuple(refused.value.metadata.items())))
    assert len(texts) == 1


async def test_each_update_makes_a_revision_and_keeps_the_old(house: House) -> None:
    first = await house.agents.create(ADA, draft(description="one"), None)
    second = await change(house, first, "two", etag=first.agent.etag)
    assert (second.agent.revision, second.revision.description) == (2, "two")
    assert second.agent.etag != first.agent.etag
    assert (await house.agents.get(ADA, "mine", 1)).revision.description == "one"
    with pytest.raises(NotFound):
        await house.agents.get(ADA, "mine", 3)
    listed = await house.agents.list_revisions(ADA, "mine", before=None, limit=10)
    assert [view.revision.revision for view in listed] == [2, 1]
    listed = await house.agents.list_revisions(ADA, "mine", before=2, limit=10)
    assert [view.revision.revision for view in listed] == [1]


async def test_an_update_on_an_old_etag_is_aborted(house: House) -> None:
    first = await house.agents.create(ADA, draft(), None)
    second = await change(house, first, "two")
    with pytest.raises(Aborted) as refused:
        await change(house, first, "three", etag=first.agent.etag)
    assert refused.value.reason == "ETAG_MISMATCH"
    assert refused.value.metadata == {"etag": second.agent.etag}


async def test_of_racing_updates_with_one_etag_one_wins(house: House) -> None:
    first = await house.agents.create(ADA, draft(), None)
    racing = [change(house, first, str(n), etag=first.agent.etag) for n in range(20)]
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(one, AgentView) for one in outcomes) == 1
    assert sum(isinstance(one, Aborted) for one in outcomes) == 19


async def test_racing_updates_without_etag_all_happen(house: House) -> None:
    first = await house.agents.create(ADA, draft(), None)
    await asyncio.gather(*(change(house, first, str(n)) for n in range(10)))
    assert (await house.agents.get(ADA, "mine", None)).agent.revision == 11


async def test_a_repeated_update_answers_with_its_own_revision(house: House) -> None:
    first = await house.agents.create(ADA, draft(), None)
    key = once("u1")
    second = await change(house, first, "two", etag=first.agent.etag, idempotency=key)
    await change(house, first, "three")
    again = await change(house, first, "two", etag=first.agent.etag, idempotency=key)
    assert again.revision == second.revision
    assert (await house.agents.get(ADA, "mine", None)).agent.revision == 3


async def test_only_owner_and_administrator_change_an_agent(house: House) -> None:
    first = await house.agents.create(ADA, draft(), None)
    with pytest.raises(PermissionDenied):
        await change(house, first, "no", caller=BEN)
    with pytest.raises(PermissionDenied):
        await house.agents.delete(BEN, "mine", etag="", idempotency=None)
    assert (await change(house, first, "yes", caller=ADMIN)).revision.created_by == ADMIN.id


async def test_a_deleted_agent_is_gone_and_its_name_free(house: House) -> None:
    made = await house.agents.create(ADA, draft(), None)
    with pytest.raises(Aborted):
        await house.agents.delete(ADA, "mine", etag="x", idempotency=None)
    for _ in range(2):
        await house.agents.delete(ADA, "mine", etag=made.agent.etag, idempotency=once("d1"))
    with pytest.raises(NotFound):
        await house.agents.get(ADA, made.agent.id, None)
    with pytest.raises(NotFound):
        await house.agents.delete(ADA, "mine", etag="", idempotency=None)
    again = await house.agents.create(ADA, draft(), None)
    assert again.agent.id != made.agent.id


async def test_an_agent_with_active_runs_is_not_deleted(house: House) -> None:
    made = await house.agents.create(ADA, draft(), None)
    await house.run(state=RunState.QUEUED, agent_id=made.agent.id)
    with pytest.raises(FailedPrecondition) as refused:
        await house.agents.delete(ADA, "mine", etag="", idempotency=None)
    assert (refused.value.reason, refused.value.metadata) == (
        "AGENT_IN_USE",
        {"active_runs": "1"},
    )


async def test_lists_are_by_name_and_filtered(house: House) -> None:
    for name in ("zeta", "beta", "beta-2"):
        await house.agents.create(ADA, draft(name), None)

    async def names(**more: object) -> list[str]:
        usual: dict[str, object] = {"source": None, "name_prefix": "", "after": "", "limit": 10}
        views = await house.agents.list_agents(BEN, **(usual | more))  # type: ignore[arg-type]
        return [view.agent.name for view in views]

    assert await names() == ["beta", "beta-2", "hello", "tables", "zeta"]
    assert await names(source=AgentSource.API) == ["beta", "beta-2", "zeta"]
    assert await names(name_prefix="be", limit=1) == ["beta"]
    assert await names(name_prefix="be", after="beta") == ["beta-2"]


# ---- from code -----------------------------------------------------------------------------------


async def test_registered_code_is_an_agent_of_every_tenant(house: House) -> None:
    outcome = await house.registration.start(["default"])
    assert outcome["default"].made == ("hello", "tables")
    found = await house.agents.get(RIVAL, "hello", None)
    assert found.agent.source is AgentSource.CODE
    assert found.revision.input_schema_json == HELLO.input_schema_json
    assert (await house.registration.ensure("default")).made == ()


async def test_changed_code_makes_a_revision_and_equal_code_none(house: House) -> None:
    await house.registration.start(["default"])
    house.use([HELLO, TABLES])
    assert (await house.registration.start(["default"]))["default"].revised == ()
    house.use([replace(HELLO, fingerprint="f9"), TABLES])
    assert (await house.registration.start(["default"]))["default"].revised == ("hello",)
    assert (await house.agents.get(ADA, "hello", None)).agent.revision == 2
    assert (await house.agents.get(ADA, "tables", None)).agent.revision == 1


async def test_code_does_not_take_the_name_of_an_agent_of_the_tenant() -> None:
    house = House(codes=[])
    await house.agents.create(ADA, draft("hello"), None)
    house.use([HELLO])
    assert (await house.registration.start(["default"]))["default"].taken == ("hello",)
    assert (await house.agents.get(ADA, "hello", None)).agent.source is AgentSource.API


@pytest.mark.parametrize("at_start", [True, False])
async def test_a_taken_name_is_said_in_the_log_once(
    caplog: pytest.LogCaptureFixture, at_start: bool
) -> None:
    caplog.set_level("WARNING")
    house = House(codes=[])
    await house.agents.create(ADA, draft("hello"), None)
    house.use([HELLO])
    if at_start:
        await house.registration.start(["default"])
    for _ in range(2):
        await house.agents.get(ADA, "hello", None)
    (line,) = [vars(one) for one in caplog.records if "action" in vars(one)]
    assert (line["levelname"], line["action"]) == ("WARNING", "agent_name_taken")
    assert (line["tenant"], line["agent"]) == ("default", "hello")


async def test_agents_from_code_are_read_only(house: House) -> None:
    found = await house.agents.get(ADMIN, "hello", None)
    with pytest.raises(FailedPrecondition) as refused:
        await change(house, found, "no", caller=ADMIN)
    assert refused.value.reason == "AGENT_READ_ONLY"
    with pytest.raises(FailedPrecondition):
        await house.agents.delete(ADMIN, "hello", etag="", idempotency=None)


async def test_a_fork_is_an_agent_of_ones_own_startable_at_revision_1(house: House) -> None:
    made = await house.blueprints.fork(ADA, "tables", "my-tables", None)
    assert (made.agent.owner, made.agent.source) == (ADA.id, AgentSource.API)
    assert (made.agent.revision, made.revision.blueprint) == (1, "tables")
    assert hindrance(made.revision, house.catalog, house.tools) is None
    changed = await change(house, made, "mine now")
    assert changed.revision.blueprint == "tables"


async def test_a_fork_without_a_name_takes_the_next_free_one(house: House) -> None:
    names = [(await house.blueprints.fork(ADA, "tables", "", None)).agent.name for _ in range(2)]
    assert names == ["tables-2", "tables-3"]
    again = [await house.blueprints.fork(ADA, "tables", "", once("f1")) for _ in range(2)]
    assert again[0] == again[1]
    for unknown in ("nothing", "hello"):
        with pytest.raises(NotFound):
            await house.blueprints.fork(ADA, unknown, "x", None)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("agent.input_schema_json", {"input_schema_json": '{"type": "text"}'}),
        ("agent.input_schema_json", {"input_schema_json": "[]"}),
        ("agent.output_schema_json", {"output_schema_json": '{"$ref": "https://x.test/s"}'}),
        ("agent.env['PATH']", {"env": {"PATH": "/tmp"}}),
        ("agent.env['ld_preload']", {"env": {"ld_preload": "x.so"}}),
        ("agent.env['PYTHONPATH']", {"env": {"PYTHONPATH": "."}}),
        ("agent.env['1A']", {"env": {"1A": ""}}),
        ("agent.env['A']", {"env": {"A": "x" * 5000}}),
        ("agent.secrets['A']", {"env": {"A": ""}, "extra_json": '{"secrets":{"A":"h"}}'}),
        ("agent.harness.python", {"harness": HarnessKind.PYTHON}),
        ("agent.blueprint", {"blueprint": "nothing", "harness": HarnessKind.CHILD}),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_field(
    house: House, field: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await house.agents.create(ADA, draft(**settings), None)
    assert [one.field for one in refused.value.fields] == [field]
    problems = house.agents.validate(draft(**settings))
    assert any(one.is_refused and f"agent.{one.field}" == field for one in problems)


def test_what_cannot_be_started_here_is_said_but_kept(house: House) -> None:
    found = house.agents.validate(draft(allowed_tools=("mail.send",)))
    assert [(one.field, one.is_error, one.is_refused) for one in found] == [
        ("harness", True, False),
        ("allowed_tools[0]", True, False),
    ]
