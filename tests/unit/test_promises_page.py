"""docs/promises.md names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda value: str(value))
def test_each_named_test_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_each_promise_is_there_with_its_tests() -> None:
    promises = re.findall(r"\*\*(P\d+(?:, P\d+)*)", PAGE)
    numbers = {name for group in promises for name in group.split(", ")}
    spoken = {f"P{number}" for number in range(1, 18)}
    assert numbers == spoken - {"P11", "P12"}
    for part in re.split(r"\n(?=\*\*P\d)", PAGE)[1:]:
        assert "`tests/" in part, part.splitlines()[0]
