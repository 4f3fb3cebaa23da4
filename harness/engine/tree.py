"""Inputs that begin alike are evaluated once: a tree of token runs, its trunk shared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Run:
    """A stretch of tokens that every input below it has in common."""

    position: int
    """Of its first token in any input that passes through."""
    row: int
    """Of its first token among the rows of the whole tree."""
    length: int


@dataclass(frozen=True)
class Tree:
    """Runs parent first, each subtree together.

    Read in that order, the keys of a run's ancestors are those last written below its position:
    one buffer as long as the longest input serves them all.
    """

    runs: list[Run]
    tokens: np.ndarray
    """Of all runs, one after the other; (rows,), int64."""
    paths: list[list[Run]]
    """The runs of each input, in the order of the inputs."""

    @classmethod
    def of(cls, inputs: Sequence[np.ndarray]) -> "Tree":
        """Share every common beginning."""
        runs: list[Run] = []
        pieces: list[np.ndarray] = []
        paths: list[list[Run]] = [[] for _ in inputs]
        rows = 0
        waiting = [([i for i, tokens in enumerate(inputs) if len(tokens)], 0)]
        while waiting:
            members, position = waiting.pop()
            first = inputs[members[0]]
            group = [i for i in members if inputs[i][position] == first[position]]
            inside = set(group)
            stop = position + _common([inputs[i][position:] for i in group])
            runs.append(Run(position, rows, stop - position))
            pieces.append(first[position:stop])
            rows += stop - position
            for i in group:
                paths[i].append(runs[-1])
            if others := [i for i in members if i not in inside]:
                waiting.append((others, position))
            if deeper := [i for i in group if len(inputs[i]) > stop]:
                waiting.append((deeper, stop))
        return cls(runs, np.concatenate(pieces).astype(np.int64), paths)

    @property
    def depth(self) -> int:
        """Tokens of the longest input."""
        return max((run.position + run.length for run in self.runs), default=0)

    def rows(self, index: int, start: int, stop: int) -> np.ndarray:
        """Where positions start..stop-1 of an input lie among the rows of the tree."""
        found = [
            run.row + np.arange(max(start - run.position, 0), min(stop - run.position, run.length))
            for run in self.paths[index]
            if run.position < stop and run.position + run.length > start
        ]
        return np.concatenate(found) if found else np.empty(0, np.int64)


def _common(inputs: list[np.ndarray]) -> int:
    """How many first tokens all have alike."""
    shortest = min(map(len, inputs))
    head = inputs[0][:shortest]
    for other in inputs[1:]:
        differ = np.flatnonzero(head != other[: len(head)])
        head = head[: differ[0]] if len(differ) else head
    return len(head)
