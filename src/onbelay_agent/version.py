"""Which branch of changed code a run takes: decided once, when it first gets there."""

from __future__ import annotations

from onbelay_agent import values
from onbelay_agent.branch import ROOT, escaped
from onbelay_agent.call import Call
from onbelay_agent.calls import Calls
from onbelay_agent.journal import Diverged


class Versions:
    """The versions one run has been told, by name. One answer per name, wherever it is asked."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._told: dict[str, int] = {}

    def of(self, name: str, newest: int) -> int:
        """The number recorded for `name`.

        A run that gets here for the first time records `newest`. One that was here before, with
        code that did not ask, goes on as version 0 and records nothing."""
        told = self._told.get(name)
        if told is None:
            told = self._told[name] = self._first(name, newest)
        return told

    def _first(self, name: str, newest: int) -> int:
        calls, journal = self._calls, self._calls.journal
        # The number is no part of the digest: newer code asks with a larger one.
        step_id = f"{ROOT}:version:{escaped(name)}#1"
        is_recorded = step_id in journal.unasked
        if not is_recorded and journal.passed(calls.stage):
            return 0
        recorded = journal.result_of(step_id)
        call = Call(step_id, "VERSION", name, values.digest(name), f'{{"version":{newest}}}')
        calls.ask(call)
        if not is_recorded:
            return newest
        if recorded is None or recorded.ok_json is None:
            calls.problem = calls.problem or Diverged(step_id, "no number", "that one is asked for")
            return 0
        return int(recorded.ok_json)
