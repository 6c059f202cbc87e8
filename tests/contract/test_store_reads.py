from __future__ import annotations

from dataclasses import replace

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.event import CustomReported, LogWritten
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.state import ApprovalKind, ApprovalState, LogLevel, RunState
from onbelay_server.ports.store import ApprovalFilter, Place, RunFilter, Store
from tests.contract.entities import (
    ADA,
    ADMIN,
    FOREIGN_ADMIN,
    STRANGER,
    T0,
    append,
    make_agent,
    make_approval,
    make_artifact,
    make_request,
    make_revision,
    make_run,
    put,
    start,
)

OWNER = Viewer(tenant="acme", principal="user:owner", is_admin=False)
ANY = RunFilter()
ANY_APPROVAL = ApprovalFilter()


async def ids(store: Store, viewer: Viewer, which: RunFilter = ANY, limit: int = 100) -> list[str]:
    return [run.id for run in await store.list_runs(viewer, which, after=None, limit=limit)]


async def test_who_sees_which_runs(store: Store) -> None:
    await start(
        store,
        make_run("mine", create_us=T0 + 1),
        make_run("bobs", create_us=T0 + 2, starter="user:bob"),
        make_run("bobs-own", create_us=T0 + 3, starter="user:bob", agent_owner="user:ada"),
        make_run("foreign", create_us=T0 + 4, tenant="other"),
    )

    assert await ids(store, ADA) == ["bobs-own", "mine"]
    assert await ids(store, ADMIN) == ["bobs-own", "bobs", "mine"]
    assert await ids(store, OWNER) == ["bobs", "mine"]
    assert await ids(store, STRANGER) == []
    assert await ids(store, FOREIGN_ADMIN) == ["foreign"]


@pytest.mark.parametrize("viewer", [ADA, ADMIN, OWNER])
async def test_pages_are_complete_and_newest_first(store: Store, viewer: Viewer) -> None:
    # Several runs share a creation time, so that a page may end between them.
    runs = [make_run(f"r{n:04}", create_us=T0 + n // 3) for n in range(1_050)]
    mixed = [replace(run, starter="user:ada", agent_owner="user:owner") for run in runs]
    await start(store, *mixed)

    seen: list[str] = []
    after: Place | None = None
    while page := await store.list_runs(viewer, ANY, after=after, limit=97):
        assert len(page) <= 97
        seen += [run.id for run in page]
        after = Place(page[-1].create_us, page[-1].id)

    assert seen == [run.id for run in reversed(runs)]


async def test_filters_of_runs(store: Store) -> None:
    await start(
        store,
        make_run("r1", create_us=T0 + 1, labels={"team": "a", "it's": 'a "b"'}, session_id="s"),
        make_run("r2", create_us=T0 + 2, labels={"team": "b"}, state=RunState.RUNNING),
        make_run(
            "r3", create_us=T0 + 3, root_id="r1", parent_id="r1", depth=1, agent_id="agt_2",
            agent_name="other",
        ),
    )  # fmt: skip
    for which, expected in (
        (RunFilter(agent_ids=["agt_2"]), ["r3"]),
        (RunFilter(agent_ids=["greeter", "agt_2"]), ["r3", "r2", "r1"]),
        (RunFilter(states=[RunState.RUNNING]), ["r2"]),
        (RunFilter(states=[RunState.RUNNING, RunState.QUEUED]), ["r3", "r2", "r1"]),
        (RunFilter(labels={"team": "a"}), ["r1"]),
        (RunFilter(labels={"team": "a", "it's": 'a "b"'}), ["r1"]),
        (RunFilter(labels={"team": "a", "other": "b"}), []),
        (RunFilter(session_id="s"), ["r1"]),
        (RunFilter(starter="user:ada"), ["r3", "r2", "r1"]),
        (RunFilter(starter="user:bob"), []),
        (RunFilter(parent_id="r1"), ["r3"]),
        (RunFilter(root_id="r1"), ["r3", "r1"]),
        (RunFilter(roots_only=True), ["r2", "r1"]),
        (RunFilter(created_from_us=T0 + 2), ["r3", "r2"]),
        (RunFilter(created_before_us=T0 + 2), ["r1"]),
        (RunFilter(roots_only=True, agent_ids=["greeter"], created_from_us=T0 + 2), ["r2"]),
    ):
        for viewer in (ADA, ADMIN):
            assert await ids(store, viewer, which) == expected, which
        for run_id in ("r1", "r2", "r3"):
            run = await store.run(run_id)
            assert run is not None
            assert which.matches(run) == (run_id in expected)


async def test_a_log_is_read_by_count_bytes_kinds_and_end(
    store: Store, codec: ProtoEventCodec
) -> None:
    await start(store, make_run("r1"))
    for number in range(6):
        custom = CustomReported(name="n", data_json="{}")
        log = LogWritten(level=LogLevel.INFO, message="x" * 100)
        event = NewEvent("r1", custom if number % 2 else log)

        def decide(_rows: Rows, _now_us: int, event: NewEvent = event) -> Change[None]:
            return Change(result=None, events=[event])

        await store.write(Reads(runs=["r1"]), decide)
    log_kind, custom_kind = codec.number(LogWritten), codec.number(CustomReported)

    async def read(
        after: int = 0, limit: int = 100, max_bytes: int = 1_000_000, **more: object
    ) -> list[int]:
        found = await store.events(
            "r1", after=after, limit=limit, max_bytes=max_bytes, **more  # type: ignore[arg-type]
        )  # fmt: skip
        return [event.sequence for event in found]

    assert await read() == [1, 2, 3, 4, 5, 6, 7]
    assert await read(after=5) == [6, 7]
    assert await read(after=7) == []
    assert await read(after=99) == []
    assert await read(limit=2) == [1, 2]
    assert await read(max_bytes=1) == [1]
    assert await read(after=1, max_bytes=1) == [2]
    second = (await store.events("r1", after=1, limit=1, max_bytes=1))[0]
    assert await read(after=1, max_bytes=len(second.body)) == [2]
    assert await read(after=1, max_bytes=len(second.body) + 1) == [2, 3]
    assert await read(kinds=[custom_kind]) == [3, 5, 7]
    assert await read(kinds=[custom_kind], after=3, limit=1) == [5]
    assert await read(except_kinds=[custom_kind]) == [1, 2, 4, 6]
    assert await read(kinds=[log_kind, custom_kind], except_kinds=[log_kind]) == [3, 5, 7]
    assert await read(through=3) == [1, 2, 3]
    assert await read(after=2, through=4) == [3, 4]
    assert await store.events("unknown", after=0, limit=9, max_bytes=9) == []


async def test_who_sees_which_approvals(store: Store) -> None:
    mine, bobs = make_run("mine"), make_run("bobs", starter="user:bob")
    foreign = make_run("foreign", tenant="other")
    await start(store, mine, bobs, foreign)
    await put(
        store,
        make_approval("a1", mine, create_us=T0 + 1),
        make_approval("a2", bobs, create_us=T0 + 2, evidence_artifact_id="art_1"),
        make_approval("a3", bobs, create_us=T0 + 3, approvers=("user:ada", "user:eve")),
        make_approval("a4", foreign, create_us=T0 + 4, approvers=("user:ada",)),
        make_approval(
            "a5", mine, create_us=T0 + 5, approvers=("user:bob",), state=ApprovalState.APPROVED,
            kind=ApprovalKind.QUESTION,
        ),
    )  # fmt: skip

    async def seen(viewer: Viewer, which: ApprovalFilter = ANY_APPROVAL) -> list[str]:
        found = await store.list_approvals(viewer, which, after=None, limit=10)
        return [approval.id for approval in found]

    assert await seen(ADA) == ["a5", "a3", "a1"]
    assert await seen(ADMIN) == ["a5", "a3", "a2", "a1"]
    assert await seen(OWNER) == ["a5", "a3", "a2", "a1"]
    assert await seen(STRANGER) == ["a3"]
    assert await seen(FOREIGN_ADMIN) == ["a4"]
    assert await seen(ADA, ApprovalFilter(decidable_by="user:ada")) == ["a3", "a1"]
    assert await seen(ADMIN, ApprovalFilter(decidable_by="user:bob")) == ["a5", "a2"]
    assert await seen(ADMIN, ApprovalFilter(run_id="mine")) == ["a5", "a1"]
    assert await seen(ADMIN, ApprovalFilter(states=[ApprovalState.APPROVED])) == ["a5"]
    assert await seen(ADMIN, ApprovalFilter(kinds=[ApprovalKind.QUESTION])) == ["a5"]
    assert await seen(ADMIN, ApprovalFilter(agent_id="greeter")) == ["a5", "a3", "a2", "a1"]
    assert await seen(ADMIN, ApprovalFilter(agent_id="agt_1", run_id="bobs")) == ["a3", "a2"]
    assert await seen(ADMIN, ApprovalFilter(evidence_artifact_id="art_1")) == ["a2"]
    assert await seen(ADA, ApprovalFilter(evidence_artifact_id="art_1")) == []
    first = await store.list_approvals(ADA, ApprovalFilter(), after=None, limit=1)
    rest = await store.list_approvals(
        ADA, ApprovalFilter(), after=Place(first[0].create_us, first[0].id), limit=9
    )
    assert [one.id for one in rest] == ["a3", "a1"]


async def test_artifacts_of_a_run_oldest_first(store: Store) -> None:
    await start(store, make_run("r1"))
    rows = [make_artifact(f"f{n}", "r1", create_us=T0 + n // 2, sha256=f"{n}") for n in range(5)]
    upload = make_artifact("up", None, expire_us=T0 + 10, sha256="up")
    await put(store, *reversed(rows), upload)

    first = await store.list_artifacts("r1", after=None, limit=3)
    rest = await store.list_artifacts("r1", after=Place(first[-1].create_us, first[-1].id), limit=9)
    assert first + rest == rows
    assert await store.artifact("up") == upload
    assert await store.expired_uploads(T0 + 9, limit=5) == []
    assert await store.expired_uploads(T0 + 10, limit=5) == [upload]
    assert await store.blobs_in_use(["up", "3", "none"]) == {"up", "3"}

    def take(rows: Rows, _now_us: int) -> Change[None]:
        found = rows.artifact("up")
        assert found is not None
        return Change(result=None, put=[replace(found, run_id="r1", expire_us=None)])

    await store.write(Reads(artifacts=["up"]), take)
    assert await store.expired_uploads(T0 + 10, limit=5) == []
    assert len(await store.list_artifacts("r1", after=None, limit=9)) == 6

    def delete(rows: Rows, _now_us: int) -> Change[None]:
        found = rows.artifact("f3")
        assert found is not None
        return Change(result=None, delete=[found])

    await store.write(Reads(artifacts=["f3"]), delete)
    assert await store.blobs_in_use(["up", "3", "none"]) == {"up"}


async def test_agents_and_their_revisions(store: Store) -> None:
    agents = [make_agent(f"agt_{n}", f"name-{n}", create_us=T0 + n) for n in range(4)]
    await put(store, *agents, make_agent("agt_9", "name-1", tenant="other"))
    await put(store, *(make_revision("agt_1", number) for number in range(1, 6)))
    await put(store, make_revision("agt_2", 1))

    def delete(rows: Rows, _now_us: int) -> Change[None]:
        found = rows.agent("agt_3")
        assert found is not None
        return Change(result=None, put=[replace(found, delete_us=T0)])

    await store.write(Reads(agents=["agt_3"]), delete)

    first = await store.list_agents("acme", after=None, limit=2)
    rest = await store.list_agents("acme", after=Place(first[-1].create_us, first[-1].id), limit=9)
    assert [agent.id for agent in first + rest] == ["agt_2", "agt_1", "agt_0"]
    assert await store.agent_named("acme", "name-1") == agents[1]
    assert await store.agent_named("acme", "name-3") is None
    newest = await store.list_revisions("agt_1", before=None, limit=2)
    older = await store.list_revisions("agt_1", before=newest[-1].revision, limit=9)
    assert [one.revision for one in newest + older] == [5, 4, 3, 2, 1]
    assert await store.revision("agt_1", 6) is None


async def test_trees_that_ended_long_ago(store: Store) -> None:
    done = {"state": RunState.SUCCEEDED}
    await start(
        store,
        make_run("old", finish_us=T0 + 1, **done),
        make_run("busy", finish_us=T0 + 2, **done),
        make_run("child", root_id="busy", parent_id="busy", depth=1, state=RunState.RUNNING),
        make_run("late", finish_us=T0 + 3, **done),
        make_run("kid", root_id="late", parent_id="late", depth=1, finish_us=T0 + 8, **done),
        make_run("new", finish_us=T0 + 9, **done),
    )

    async def expired(before_us: int, limit: int = 9) -> list[str]:
        return [run.id for run in await store.expired_roots(before_us, limit=limit)]

    assert await expired(T0 + 1) == []
    assert await expired(T0 + 2) == ["old"]
    assert await expired(T0 + 8) == ["old"]
    assert await expired(T0 + 20) == ["old", "late", "new"]
    assert await expired(T0 + 20, limit=2) == ["old", "late"]


async def test_requests_live_as_long_as_their_run(store: Store) -> None:
    await start(store, make_run("r1"))
    old, kept, young = (
        make_request("q1", "gone"),
        make_request("q2", "r1"),
        make_request("q3", "gone", create_us=T0 + 10),
    )
    more = [make_request(f"p{n}", "gone") for n in range(3)]
    await put(store, old, kept, young, *more)

    assert await store.prune_requests(T0 + 5, limit=3) == 3
    assert await store.prune_requests(T0 + 5, limit=3) == 1
    assert await store.prune_requests(T0 + 5, limit=3) == 0

    def look(rows: Rows, _now_us: int) -> Change[list[bool]]:
        keys = (old.key, kept.key, young.key)
        return Change(result=[rows.request(key) is not None for key in keys])

    reads = Reads(requests=[old.key, kept.key, young.key])
    assert (await store.write(reads, look)).result == [False, True, True]


async def test_large_inputs_and_events_come_back_whole(store: Store) -> None:
    text = '"' + "ä" * 500_000 + '"'
    await start(store, make_run("r1", input_json=text))
    await append(store, "r1", "m" * 250_000)
    await append(store, "r1")

    run = await store.run("r1")
    assert run is not None
    assert run.input_json == text
    assert run.last_sequence == 3
    events = await store.events("r1", after=1, limit=10, max_bytes=10)
    assert [event.sequence for event in events] == [2]
    assert len(events[0].body) > 250_000
