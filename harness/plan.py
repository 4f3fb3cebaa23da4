"""What a grid will cost, before any of it is run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.cell import Cell, Result


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person asked to be measured, read from the command line or a grid file."""

    models: tuple[str, ...] = ("toy",)
    methods: tuple[str, ...]
    """Specs, as `harness.catalog` reads them: `yarn,factor=8`."""
    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    """Tokens, the start token included."""
    factor: float | None = None
    """How many times further than trained; None: the longest length / the original length."""
    factors: str | None = None
    """A file of LongRoPE's per-dimension factors."""
    corpus: str | None = None
    """None: the task's own."""
    samples: int | None = None
    """None: the task's own number."""
    depths: tuple[float, ...] | None = None
    """Shares of the input before the passkey, 0 to 1; None: the task's own."""
    seed: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell and what it is expected to take."""

    cell: Cell
    tokens: int
    seconds: float
    bytes: int
    """Peak memory."""
    fits: bool
    why: str | None = None
    """Why it would not fit, or cannot be run, in words."""


class Watch(Protocol):
    """Who is told how a run comes along: a live display, a log, nobody."""

    def cell_started(self, cells: Sequence[Cell], tokens: int) -> None:
        """A pass begins that fills these cells and reads so many tokens."""

    def progressed(self, tokens: float) -> None:
        """So many more tokens of the pass are read."""

    def cell_finished(self, result: Result) -> None:
        """It is stored."""

    def note(self, message: str) -> None:
        """What a person should know, in a sentence."""
