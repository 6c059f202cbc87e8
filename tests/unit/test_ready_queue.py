"""What is claimable, answered from memory."""

from __future__ import annotations

from dataclasses import replace

from onbelay_server.adapters.sql.ready_queue import ReadyQueue
from onbelay_server.domain.state import RunState
from tests.contract.entities import make_run


def test_it_hears_of_runs_only_once_it_is_loaded() -> None:
    queue = ReadyQueue()
    queue.put(make_run("r1"))
    assert not queue.is_loaded
    assert queue.claimable(10**18, 9) == []

    queue.load([("r2", "acme", 5)])
    assert queue.claimable(5, 9) == ["r2"]
    queue.clear()
    assert not queue.is_loaded


def test_the_oldest_of_each_tenant_come_in_turn() -> None:
    queue = ReadyQueue()
    queue.load([("b2", "b", 9), ("a3", "a", 3), ("a1", "a", 1), ("a2", "a", 1), ("b1", "b", 2)])
    assert queue.claimable(9, 9) == ["a1", "b1", "a2", "b2", "a3"]
    assert queue.claimable(9, 3) == ["a1", "b1", "a2"]
    assert queue.claimable(2, 9) == ["a1", "b1", "a2"]
    assert queue.claimable(0, 9) == []
    assert queue.next_ready_us() == 1


def test_a_run_moves_and_leaves() -> None:
    queue = ReadyQueue()
    queue.load([])
    run = make_run("r1", ready_us=4)
    for state in (run, run, replace(run, ready_us=7)):
        queue.put(state)
    assert queue.next_ready_us() == 7
    assert queue.claimable(6, 9) == []
    queue.put(replace(run, state=RunState.RUNNING))
    assert queue.next_ready_us() is None
    queue.put(run)
    queue.drop("r1")
    queue.drop("r1")
    assert queue.claimable(10, 9) == []
