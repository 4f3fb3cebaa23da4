"""Many passes at a time, told to one Watch as if they were one."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from harness.cell import Cell, Result
from harness.plan import Watch


@dataclass
class Pass:
    """How far one worker is."""

    cells: list[Cell]
    tokens: int
    read: float = 0.0


class JointProgress:
    """The driver's side of its workers' progress."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._running: dict[Hashable, Pass] = {}

    def started(self, worker: Hashable, cells: Sequence[Cell], tokens: int) -> None:
        """This worker began a pass, or began it anew."""
        self._running[worker] = Pass(list(cells), tokens)
        self._tell()

    def progressed(self, worker: Hashable, tokens: float) -> None:
        """It has read so many tokens since it last said."""
        if worker in self._running:
            self._running[worker].read += tokens
            self._watch.progressed(tokens)

    def note(self, worker: Hashable, message: str) -> None:
        self._watch.note(message)

    def ended(self, worker: Hashable, results: Sequence[Result] = ()) -> None:
        """Its pass is over: these are stored, or it died."""
        for result in results:
            self._watch.cell_finished(result)
        if self._running.pop(worker, None) and self._running:
            self._tell()

    def _tell(self) -> None:
        every = self._running.values()
        cells = [cell for one in every for cell in one.cells]
        self._watch.cell_started(cells, sum(one.tokens for one in every))
        self._watch.progressed(sum(one.read for one in every))
