"""Journals that were recorded once replay against the code of today."""

from __future__ import annotations

import dataclasses

import pytest

from onbelay_agent.testing import SavedJournal
from tests.property.saved_agents import AGENTS, JOURNALS, run_of

NAMES = sorted(path.stem for path in JOURNALS.glob("*.json"))


def saved(name: str) -> SavedJournal:
    return SavedJournal.from_json((JOURNALS / f"{name}.json").read_text())


def test_every_agent_has_a_journal() -> None:
    assert sorted(AGENTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_journal_comes_to_the_same_end(name: str) -> None:
    undisturbed = run_of(name).execute()
    result = run_of(name).replay(saved(name))
    assert (result.outcome, result.error) == ("returned", None)
    assert result.output == undisturbed.output


@pytest.mark.parametrize("name", NAMES)
def test_every_beginning_of_a_kept_journal_fits(name: str) -> None:
    journal = saved(name)
    records = journal.records
    for count in range(len(records)):
        versions = {one.step_id for one in records[:count] if one.kind == "VERSION"}
        if versions - {one.step_id for one in records[:count] if one.type == "finished"}:
            continue  # answered in the commit that records it
        part = dataclasses.replace(journal, records=records[:count])
        result = run_of(name).replay(part)
        assert result.outcome in ("replayed", "returned"), result.error


@pytest.mark.parametrize("name", NAMES)
def test_the_kept_agents_run_alike_however_they_are_killed(name: str) -> None:
    run_of(name).crash_everywhere()
