"""Times that an agent asks for and nobody can write: the end of the calendar stands for them."""

from __future__ import annotations

import pytest

from onbelay_agent.protocol import Begun
from onbelay_server.domain.event import OperationStarted
from onbelay_server.domain.waiting import LAST_US
from tests.engine_house import begin, engine_house, intent


@pytest.mark.parametrize("due_us", [LAST_US + 1, 2**62, 10**30])
async def test_a_timer_past_the_calendar_waits_for_its_end(due_us: int) -> None:
    async with engine_house() as house:
        run, copy = await house.begun()
        copy.say(begin(intent("t", "TIMER", f'{{"due_us":{due_us}}}')))
        await copy.heard(Begun)
        waits = await house.store.waits([run.id])
        assert [wait.until_us for wait in waits[run.id]] == [LAST_US]


async def test_an_operation_past_the_calendar_expires_at_its_end() -> None:
    async with engine_house() as house:
        run, copy = await house.begun()
        request = '{"name":"pay","schema":null,"expires_seconds":1e300}'
        copy.say(begin(intent("o", "OPERATION", request)))
        await copy.heard(Begun)
        started = [e.payload for e in await house.log(run.id)]
        assert [one.expire_us for one in started if isinstance(one, OperationStarted)] == [LAST_US]
