"""Child runs: who may be started, and how one waits for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onbelay_agent.protocol import Intent
from onbelay_server.app.agent_rules import unbuilt
from onbelay_server.app.engine.batch import Batch
from onbelay_server.app.engine.failures import child_failure, step_error
from onbelay_server.app.schema import departures
from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.change import Rows
from onbelay_server.domain.event import ChildRunStarted, StepError, StepFinished
from onbelay_server.domain.family import MAX_DEPTH, MAX_TREE_RUNS
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.lifecycle import launched
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import RunState, StepKind
from onbelay_server.ports.store import Store


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent that may be started as a child; looked up before the unit is decided."""

    agent: Agent
    revision: AgentRevision


class Relatives:
    """Starts and awaits the children of one run."""

    def __init__(self, run: Run, revision: AgentRevision, store: Store) -> None:
        self._run = run
        self._revision = revision
        self._store = store
        self._candidates: dict[str, Candidate | str] = {}

    async def prepare(self, intents: Sequence[Intent]) -> None:
        """Look up the agents that these calls name."""
        for intent in intents:
            request = json.loads(intent.request_json)
            if "agent" in request:
                self._candidates[intent.id] = await self._candidate(request)

    async def _candidate(self, request: Mapping[str, Any]) -> Candidate | str:
        """The agent, or why it cannot be started."""
        name = request["agent"]
        agent = await self._store.agent_named(self._run.tenant, name)
        if agent is None:
            return f"there is no agent {name!r}"
        revision = await self._store.revision(agent.id, agent.revision)
        if revision is None:
            return f"there is no agent {name!r}"
        allowed = revision.allowed_users
        if allowed and self._run.starter not in allowed:
            return f"{self._run.starter} may not start {name!r}"
        if missing := unbuilt(revision):
            return f"{name!r} cannot be started: {missing[0].message}"
        found = await departures(revision.input_schema_json, request["input_json"], "input")
        if found:
            first = found[0]
            return f"the input does not fit {name!r}: {first.field}: {first.description}"
        return Candidate(agent, revision)

    def start(
        self,
        batch: Batch,
        step_id: str,
        request: Mapping[str, Any],
        rows: Rows,
        entropy: bytes,
        now_us: int,
    ) -> None:
        """`ctx.start_agent`: the child exists, or the call fails."""
        run, candidate = self._run, self._candidates[step_id]
        if isinstance(candidate, str):
            _refuse(batch, step_id, candidate)
            return
        if run.depth >= MAX_DEPTH:
            _refuse(batch, step_id, f"a tree of runs is at most {MAX_DEPTH} deep")
            return
        if len(rows.tree(run.root_id)) + batch.children >= MAX_TREE_RUNS:
            _refuse(batch, step_id, f"a tree holds at most {MAX_TREE_RUNS} runs")
            return
        child = Run(
            id=make_id("run", now_us, entropy),
            tenant=run.tenant,
            starter=run.starter,
            root_id=run.root_id,
            parent_id=run.id,
            depth=run.depth + 1,
            agent_id=candidate.agent.id,
            agent_name=candidate.agent.name,
            agent_revision=candidate.revision.revision,
            agent_owner=candidate.agent.owner,
            labels=dict(run.labels),
            input_json=request["input_json"],
            ready_us=now_us,
            create_us=now_us,
            update_us=now_us,
        )
        digest = hashlib.sha256(child.input_json.encode()).hexdigest()
        batch.put.append(child)
        batch.children += 1
        batch.events.append(launched(child, digest))
        started = ChildRunStarted(
            child_run_id=child.id, agent_id=child.agent_id, agent_name=child.agent_name
        )
        batch.add(started, step_id)

    def wait(self, batch: Batch, step_id: str, child_id: str, rows: Rows, now_us: int) -> None:
        """The child's end, if it ended; a wait for it otherwise."""
        child = rows.run(child_id)
        if child is None or child.parent_id != self._run.id:
            _refuse(batch, step_id, "that is no child of this run")
        elif not child.state.is_final:
            longest_us = int(self._revision.limits.wait_seconds * 1_000_000)
            batch.put.append(
                Wait(
                    run_id=self._run.id,
                    step_id=step_id,
                    kind=StepKind.CHILD,
                    since_us=now_us,
                    until_us=now_us + longest_us,
                    child_run_id=child.id,
                )
            )
        elif child.state is RunState.SUCCEEDED:
            finished = StepFinished(result_json=child.output_json or "null")
            if child.output_artifact_id:
                finished = StepFinished(result_artifact_id=child.output_artifact_id)
            batch.add(finished, step_id)
        else:
            error = step_error(child_failure(child.id, child.state, child.error))
            batch.add(StepFinished(error=error), step_id)


def _refuse(batch: Batch, step_id: str, message: str) -> None:
    batch.add(StepFinished(error=StepError(type="ChildRunFailed", message=message)), step_id)
