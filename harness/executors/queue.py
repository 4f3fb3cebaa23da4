"""Which pass a worker takes next: of the model it holds, and of these the longest.

Longest first is within 4/3 of the best order on equal workers:
R. L. Graham, Bounds on multiprocessing timing anomalies (1969), https://doi.org/10.1137/0117039
"""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from harness.executors.work import seconds
from harness.plan import Planned


@dataclass(eq=False)
class Unit:
    """A pass, and the workers that died of it."""

    planned: Sequence[Planned]
    tried: list[Hashable] = field(default_factory=list)

    @property
    def model(self) -> str:
        return self.planned[0].cell.model

    @property
    def seconds(self) -> float:
        return seconds(self.planned)


class Queue:
    """What is left to run."""

    def __init__(self, units: Sequence[Sequence[Planned]]) -> None:
        self.left = sorted(map(Unit, units), key=lambda unit: -unit.seconds)

    def take(self, worker: Hashable, holds: dict[Hashable, str | None]) -> Unit | None:
        """The next pass of this worker; None: there is none for it now.

        A worker stays with its model while any of it is left, so that each is read as seldom as can
        be; else it goes where most is left for each worker. A pass that a worker died of is taken
        by another, if one lives.

        Args:
            worker: who asks.
            holds: the model that each living worker has read.
        """
        mine = [unit for unit in self.left if not _better_elsewhere(unit, worker, holds)]
        if not mine:
            return None
        model = holds[worker]
        if all(unit.model != model for unit in mine):
            model = self._neediest({unit.model for unit in mine}, holds)
        unit = next(unit for unit in mine if unit.model == model)
        self.left.remove(unit)
        return unit

    def again(self, unit: Unit) -> None:
        """Give a pass back."""
        self.left.append(unit)
        self.left.sort(key=lambda unit: -unit.seconds)

    def _neediest(self, models: Collection[str], holds: dict[Hashable, str | None]) -> str:
        work, hands = Counter[str](), Counter(holds.values())
        for unit in self.left:
            work[unit.model] += unit.seconds
        return max(sorted(models), key=lambda model: work[model] / (1 + hands[model]))


def _better_elsewhere(unit: Unit, worker: Hashable, living: Collection[Hashable]) -> bool:
    return worker in unit.tried and any(other not in unit.tried for other in living)
