"""What a store keeps of each kind of row, and what goes with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from onbelay_server.domain.agent import Limits, OnCodeChange
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.run import Pause, RunError, StopRequest
from onbelay_server.domain.state import (
    ApprovalState,
    Decision,
    FailureReason,
    RunState,
)
from onbelay_server.ports.store import Store
from tests.contract.entities import (
    T0,
    append,
    make_agent,
    make_approval,
    make_artifact,
    make_revision,
    make_run,
    make_wait,
    put,
    start,
    whole_log,
)


async def test_a_deleted_agent_frees_its_name(store: Store) -> None:
    first = make_agent("agt_1", "greeter")
    await put(store, first)

    def swap(rows: Rows, _now_us: int) -> Change[None]:
        found = rows.agent_named("acme", "greeter")
        assert found == first
        return Change(result=None, put=[replace(found, delete_us=T0 + 1)])

    await store.write(Reads(agent_names=[("acme", "greeter")]), swap)
    await put(store, make_agent("agt_2", "greeter"))

    named = await store.agent_named("acme", "greeter")
    assert named is not None
    assert named.id == "agt_2"
    assert await store.agent("agt_1") == replace(first, delete_us=T0 + 1)


async def test_only_pending_approvals_are_pending(store: Store) -> None:
    run = make_run("r1")
    await start(store, run)
    await put(store, make_approval("a1", run), make_approval("a2", run))

    def decide(rows: Rows, now_us: int) -> Change[list[str]]:
        first = rows.approval("a1")
        assert first is not None
        answer = [one.id for one in rows.pending_approvals("r1")]
        decided = replace(
            first, state=ApprovalState.APPROVED, decision=Decision.APPROVE, decide_us=now_us
        )
        return Change(result=answer, put=[decided])

    reads = Reads(approvals=["a1"], open_of=["r1"])
    assert (await store.write(reads, decide)).result == ["a1", "a2"]
    assert (await store.write(reads, decide)).result == ["a2"]
    kept = await store.approval("a1")
    assert kept is not None
    assert kept.decision is Decision.APPROVE


async def test_every_field_comes_back(store: Store) -> None:
    run = make_run(
        "r1",
        parent_id="r0",
        depth=3,
        title="Täglich \U0001f9d7",
        labels={"team": "a", "ключ": "значение"},
        session_id="s",
        rerun_of="r9",
        input_artifacts={"in.csv": "art_1"},
        state=RunState.STOPPED,
        epoch=4,
        owner="o1",
        lease_until_us=T0 + 5,
        attempt=2,
        pause=Pause(
            requested_by="user:ada", request_us=7, step_id="s1", recorded="a step", found="ein „Ä“"
        ),
        code_python="3.12",
        code_fingerprint="f" * 64,
        replay_after=17,
        active_us=2**40,
        claim_us=T0 + 3,
        message_count=11,
        child_count=12,
        start_us=T0 + 1,
        finish_us=T0 + 9,
        output_json='{"a":[1,2.5,null]}',
        output_artifact_id="art_9",
        error=RunError(reason=FailureReason.AGENT_ERROR, message="broke"),
        stop=StopRequest(
            requested_by="user:ada",
            reason="enough",
            request_us=1,
            grace_until_us=2,
            kill_us=3,
            root_id="r0",
            unstoppable=("a", "b"),
        ),
    )
    revision = make_revision(
        "agt_1",
        1,
        env={"A": "1"},
        allowed_tools=("x",),
        approvers=("user:bob",),
        limits=Limits(idle_seconds=1.5, max_log_bytes=2**40, max_attempts=2),
        on_code_change=OnCodeChange.RESTART,
    )
    wait = make_wait("r1", "s1", approval_id="a1", operation_id="o1", child_run_id="r2")
    await put(store, run, make_agent("agt_1", "greeter"), revision, wait)

    kept = await store.run("r1")
    assert kept is not None
    assert replace(kept, update_us=T0) == run
    listed = (await store.orphans(T0, alive=[], limit=10)) or [kept]
    assert listed == [kept]
    assert await store.revision("agt_1", 1) == revision
    assert await store.waits(["r1"]) == {"r1": [wait]}


async def test_deleting_a_run_takes_all_of_it(store: Store) -> None:
    run, other = make_run("r1"), make_run("r2")
    await start(store, run, other)
    await put(
        store,
        make_wait("r1", "s1"),
        make_approval("a1", run),
        make_artifact("f1", "r1"),
        make_wait("r2", "s1"),
    )

    def delete(rows: Rows, _now_us: int) -> Change[None]:
        found = rows.run("r1")
        assert found is not None
        return Change(result=None, delete=[found])

    await asyncio.gather(append(store, "r1"), store.write(Reads(runs=["r1"]), delete))

    assert await store.run("r1") is None
    assert await whole_log(store, "r1") == []
    assert await store.waits(["r1", "r2"]) == {"r1": [], "r2": [make_wait("r2", "s1")]}
    assert await store.approval("a1") is None
    assert await store.artifact("f1") is None
    assert await whole_log(store, "r2") == [1]


async def test_waits_keep_their_order_and_go_one_by_one(store: Store) -> None:
    await start(store, make_run("r1"))
    for number in (3, 1, 2):
        await put(store, make_wait("r1", f"s{number}"), make_wait("r1", f"t{number}"))
    await put(store, make_wait("r1", "s3", until_us=T0 + 1))

    def drop(rows: Rows, _now_us: int) -> Change[None]:
        return Change(result=None, delete=[w for w in rows.waits("r1") if w.step_id == "t3"])

    await store.write(Reads(open_of=["r1"]), drop)

    found = (await store.waits(["r1"]))["r1"]
    assert [wait.step_id for wait in found] == ["s3", "s1", "t1", "s2", "t2"]
    assert found[0].until_us == T0 + 1
