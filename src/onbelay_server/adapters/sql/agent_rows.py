"""Agents and their revisions as rows, column by column in the order of the tables."""

from __future__ import annotations

import json
from dataclasses import asdict

from onbelay_server.adapters.sql.rows import Row
from onbelay_server.domain.agent import (
    Agent,
    AgentRevision,
    AgentSource,
    HarnessKind,
    Limits,
    OnCodeChange,
)
from onbelay_server.domain.state import Risk


def agent_values(row: Agent) -> tuple[object, ...]:
    return (
        row.id,
        row.tenant,
        row.name,
        row.owner,
        row.source.value,
        row.revision,
        row.etag,
        row.create_us,
        row.update_us,
        row.delete_us,
    )


def agent_from(row: Row) -> Agent:
    return Agent(
        id=row[0],
        tenant=row[1],
        name=row[2],
        owner=row[3],
        source=AgentSource(row[4]),
        revision=row[5],
        etag=row[6],
        create_us=row[7],
        update_us=row[8],
        delete_us=row[9],
    )


def revision_values(row: AgentRevision) -> tuple[object, ...]:
    return (
        row.agent_id,
        row.revision,
        row.create_us,
        row.created_by,
        row.description,
        row.blueprint,
        row.harness.value,
        row.instructions,
        row.model,
        row.model_settings_json,
        row.input_schema_json,
        row.output_schema_json,
        json.dumps(row.allowed_tools, ensure_ascii=False),
        row.highest_risk.value,
        json.dumps(dict(row.env), ensure_ascii=False),
        json.dumps(asdict(row.limits)),
        row.accepts_messages,
        json.dumps(row.approvers, ensure_ascii=False),
        json.dumps(row.allowed_users, ensure_ascii=False),
        row.extra_json,
        row.on_code_change.value,
    )


def revision_from(row: Row) -> AgentRevision:
    return AgentRevision(
        agent_id=row[0],
        revision=row[1],
        create_us=row[2],
        created_by=row[3],
        description=row[4],
        blueprint=row[5],
        harness=HarnessKind(row[6]),
        instructions=row[7],
        model=row[8],
        model_settings_json=row[9],
        input_schema_json=row[10],
        output_schema_json=row[11],
        allowed_tools=tuple(json.loads(row[12])),
        highest_risk=Risk(row[13]),
        env=json.loads(row[14]),
        # Limits that a later version added have their default in what was written before.
        limits=Limits(**json.loads(row[15])),
        accepts_messages=bool(row[16]),
        approvers=tuple(json.loads(row[17])),
        allowed_users=tuple(json.loads(row[18])),
        extra_json=row[19],
        on_code_change=OnCodeChange(row[20]),
    )
