"""The search itself: keep the best, change them a little, and read no further than needed.

Ding et al. 2024, https://arxiv.org/abs/2402.13753, section 3.3: elitist, so a parent is never read
again. Racing is this project's: a candidate that some documents show to be clearly worse than the
worst parent is not read on. How far it might yet come is an estimate, `LEAP`: the parents are those
that reading everything would have chosen as far as was tried, and without racing for certain.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from statistics import fmean, median

from harness.search.space import SCHEMES, Individual, Scheme, Space

LEAP = 2
"""How far below the best a candidate might yet come, in distances from there to the median parent.

At 1 the search of the toy that tests/golden holds would have lost a parent, in some orders of its
documents; at 2 in none.
"""
Table = dict[Individual, list[float]]
"""Of each individual that was proposed: its mean loss on the first documents, in nats."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What makes one search another; the defaults are the published code's."""

    population: int = 64
    """Individuals of the first generation."""
    parents: int = 32
    """The best, which live on."""
    mutations: int = 16
    crossovers: int = 16
    """New individuals of each later generation."""
    iterations: int = 40
    """Generations after the first."""
    scheme: str = "dim-mono"
    racing: bool = True
    seed: int = 42

    def __post_init__(self) -> None:
        counts = {"population": 1, "parents": 1, "mutations": 0, "crossovers": 0, "iterations": 0}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {least} or more, not {getattr(self, name)}.")
        if self.parents > self.population:
            raise ValueError(
                f"{self.parents} parents cannot be chosen from a population of {self.population}: "
                "lower --parents or raise --population."
            )
        if self.scheme not in SCHEMES:
            raise ValueError(f"--scheme is one of {', '.join(SCHEMES)}, not {self.scheme!r}.")

    @property
    def evaluations(self) -> int:
        """Individuals that are looked at, at most."""
        return self.population + self.iterations * (self.mutations + self.crossovers)


@dataclass(frozen=True)
class Generation:
    """How the search stands after some of it."""

    number: int
    parents: tuple[Individual, ...]
    """Best first."""
    best: float
    """Mean loss of the best, in nats."""
    worst: float
    """Of the last parent."""
    evaluations: int
    """Individuals looked at so far."""
    saved: int
    """Documents that racing left unread so far."""


def evolve(
    starts: Sequence[Individual],
    space: Space,
    settings: Settings,
    read: Callable[[Individual, int], float],
    documents: int,
    table: Table,
    kept: Callable[[], None] = lambda: None,
) -> Iterator[Generation]:
    """Every generation as it is done.

    All that is random follows from the seed, and every loss from `table` where it is there: given
    the table of a search that was cut short, this is the search that was not.

    Args:
        starts: the first individuals; mutants of them fill the population.
        space: what they, and all others, are of.
        settings: how many, how, from which seed.
        read: the mean loss of an individual on one document, by its number.
        documents: how many there are.
        table: losses known; filled as the search goes.
        kept: called when a loss was read and is in the table.
    """
    chance = Random(settings.seed)
    scheme = SCHEMES[settings.scheme](space, chance)
    race = Race(read, documents, table, settings, kept)
    known = dict.fromkeys(starts)
    _fill(known, settings.population, lambda: scheme.mutant(chance.choice(starts), known))
    new, parents = list(known)[: settings.population], []
    for number in range(settings.iterations + 1):
        if number:
            new = _offspring(parents, scheme, chance, settings, known)
        parents = race.parents(parents, new)
        yield Generation(
            number,
            tuple(parents),
            race.mean(parents[0]),
            race.mean(parents[-1]),
            len(known),
            race.saved,
        )


def _offspring(
    parents: Sequence[Individual],
    scheme: Scheme,
    chance: Random,
    settings: Settings,
    known: dict[Individual, None],
) -> list[Individual]:
    """Mutants and children of the parents; remembered in `known`, in order."""
    before = len(known)

    def mutant() -> Individual | None:
        return scheme.mutant(chance.choice(parents), known)

    def child() -> Individual | None:
        if len(parents) < 2:
            return mutant()
        better, other = sorted(chance.sample(range(len(parents)), 2))
        made = scheme.child(parents[better], parents[other], known)
        return made or scheme.mutant(parents[better], known)

    _fill(known, before + settings.mutations, mutant)
    _fill(known, len(known) + settings.crossovers, child)
    return list(known)[before:]


def _fill(
    known: dict[Individual, None], size: int, propose: Callable[[], Individual | None]
) -> None:
    """Until there are so many, or nothing new can be found."""
    while len(known) < size and (made := propose()) is not None:
        known[made] = None


class Race:
    """Who of the candidates joins the parents, reading as little as that takes."""

    def __init__(
        self,
        read: Callable[[Individual, int], float],
        documents: int,
        table: Table,
        settings: Settings,
        kept: Callable[[], None] = lambda: None,
    ) -> None:
        self.read, self.documents, self.table, self.kept = read, documents, table, kept
        self.keep, self.racing = settings.parents, settings.racing
        self.best = [inf] * documents
        """The lowest loss that anyone has on each document."""
        self.saved = 0
        """Documents left unread."""

    def parents(self, parents: list[Individual], new: Sequence[Individual]) -> list[Individual]:
        """The best of both, best first.

        All see the first document; then, the most promising first, each sees the rest for as long
        as it has a chance.
        """
        if self.racing:
            new = sorted(new, key=lambda it: (self.loss(it, 0), it))
        for candidate in new:
            if self._finishes(candidate, parents):
                parents = sorted([*parents, candidate], key=self._rank)[: self.keep]
        return parents

    def mean(self, it: Individual) -> float:
        """Over all documents."""
        return fmean(self.table[it])

    def loss(self, it: Individual, document: int) -> float:
        """From the table, or read now; documents come in their order."""
        row = self.table.setdefault(it, [])
        if document == len(row):
            row.append(self.read(it, document))
            self.kept()
        self.best[document] = min(self.best[document], row[document])
        return row[document]

    def _rank(self, it: Individual) -> tuple[float, Individual]:
        return self.mean(it), it

    def _finishes(self, candidate: Individual, parents: list[Individual]) -> bool:
        """Read on to the last document, or until it is clearly worse than the worst parent."""
        read = 0.0
        for seen in range(1, self.documents + 1):
            read += self.loss(candidate, seen - 1)
            if seen < self.documents and self._hopeless(read, seen, parents):
                self.saved += self.documents - seen
                return False
        return True

    def _hopeless(self, read: float, seen: int, parents: list[Individual]) -> bool:
        """Whether even reading the rest better than anyone would not make it a parent.

        Granted is, on each document it has not seen, a loss below the lowest there is.
        """
        if not self.racing or len(parents) < self.keep:
            return False
        for document in range(seen, self.documents):
            best = self.best[document]
            middle = median(self.table[it][document] for it in parents)
            read += best - LEAP * (middle - best)
        return read / self.documents > self.mean(parents[-1])
