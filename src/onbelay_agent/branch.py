"""Where in the agent's task tree something is asked: the first part of every id."""

from __future__ import annotations

import hashlib
import random
import re
import uuid

from onbelay_agent.errors import RefusedCall

ROOT = "main"
_LONGEST_PATH = 160
_RESERVED = re.compile(r"[%/:#=\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escaped(name: str) -> str:
    """A name with the characters that ids are built from written as `%XX`."""
    if _RESERVED.search(name) is None:
        return name
    return _RESERVED.sub(lambda match: f"%{ord(match[0]):02X}", name)


class Branch:
    """One task's place in the tree (`main`, `main/worker.2`, `main/=loader.1`) and its counters.

    Every counter is advanced by the agent's own code alone, so a replay counts alike."""

    __slots__ = ("_children", "_occurrences", "_ordinal", "_random", "_seed", "_uuids", "path")

    def __init__(self, path: str, seed: str) -> None:
        if len(path) > _LONGEST_PATH:
            path = f"{path[:100]}~{hashlib.sha256(path.encode()).hexdigest()[:16]}"
        self.path = path
        self._seed = seed
        self._children: dict[str, int] = {}
        self._occurrences: dict[str, int] = {}
        self._ordinal = 0
        self._random: random.Random | None = None
        self._uuids: random.Random | None = None

    def child(self, label: str) -> Branch:
        """The branch of the next task with this label."""
        number = self._children.get(label, 0) + 1
        self._children[label] = number
        return Branch(f"{self.path}/{label}.{number}", self._seed)

    def next_id(self, kind: str, name: str) -> str:
        """The id of the next call of this kind and name: `branch:kind:name#occurrence`."""
        key = f"{kind}:{escaped(name)}"
        number = self._occurrences.get(key, 0) + 1
        self._occurrences[key] = number
        return f"{self.path}:{key}#{number}"

    def next_ordinal(self) -> int:
        """The ordinal of the next emit."""
        self._ordinal += 1
        return self._ordinal

    @property
    def random(self) -> random.Random:
        """Chance that falls alike on every replay."""
        if self._random is None:
            self._random = random.Random(f"{self._seed}:{self.path}:random")
        return self._random

    def uuid(self) -> uuid.UUID:
        """The next UUID (version 4) of this branch."""
        if self._uuids is None:
            self._uuids = random.Random(f"{self._seed}:{self.path}:uuid")
        return uuid.UUID(int=self._uuids.getrandbits(128), version=4)


class FinalizerBranch(Branch):
    """Of tasks that close abandoned async generators: their moment is chance, so no calls."""

    __slots__ = ()

    def next_id(self, kind: str, name: str) -> str:
        raise RefusedCall(
            f"{kind} {name!r} was called while an abandoned async generator was closed; "
            "close it in your code with contextlib.aclosing"
        )
