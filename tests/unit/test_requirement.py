from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.requirement import REQUIRE_ALL, find_program, require


def test_present_requirement_lets_the_test_run() -> None:
    require("anything", True)


def test_absent_requirement_skips_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    with pytest.raises(pytest.skip.Exception, match="sextant is absent"):
        require("sextant", None)


def test_absent_requirement_fails_where_all_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="sextant is absent"):
        require("sextant", False)


def test_programs_beside_the_interpreter_are_found_first() -> None:
    name = Path(sys.executable).name
    assert find_program(name) == str(Path(sys.executable).parent / name)


def test_unknown_program_is_none() -> None:
    assert find_program("no-such-program-of-ours") is None
