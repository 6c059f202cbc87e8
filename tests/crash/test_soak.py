"""A short soak; `make soak MINUTES=n` runs one of any length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import soak


@pytest.mark.timeout(180)
async def test_every_promise_holds_while_the_server_is_killed(tmp_path: Path) -> None:
    report = await soak(tmp_path, seed=20, runs=40, seconds=18.0)
    assert report.broken == [], str(report)
    assert report.kills >= 3
    assert report.states["SUCCEEDED"] > 20
