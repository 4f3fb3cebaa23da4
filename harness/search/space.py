"""What the search looks through, and how it proposes: one divisor for each pair, and n-hat.

Ding et al. 2024, https://arxiv.org/abs/2402.13753, section 3.2 and its table of the space; the
proposals as in https://github.com/microsoft/LongRoPE, where n-hat is not searched.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from random import Random

STEPS = 100
"""Of a divisor, in 1: they are searched to the second decimal."""
START_TOKENS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
"""What n-hat is searched among."""
BEYOND = 1.25
"""A divisor goes up to so many times s."""
MUTATED = 0.3
"""Chance of each divisor to be drawn anew, or to be considered in a crossover."""
SWAPPED = 0.5
"""Chance of one that is considered to come from the other parent."""
SWEEPS = 20
"""A crossover goes over the divisors so often before it gives up."""
TRIES = 100
"""A mutation is drawn so often before it gives up: the space may be small and known."""
JITTER = 2.0
"""Standard deviation, in pairs, of a step of a border between pieces."""


@dataclass(frozen=True, order=True)
class Individual:
    """One rescaling of the rotary embedding."""

    hundredths: tuple[int, ...]
    """The divisors lambda_i in steps of 0.01, fastest pair first: whole numbers compare exactly."""
    start_tokens: int
    """n-hat: so many first positions keep their rotation."""

    @property
    def factors(self) -> list[float]:
        return [gene / STEPS for gene in self.hundredths]


@dataclass(frozen=True)
class Space:
    """Non-decreasing divisors from 1 to the highest, and a choice of n-hat."""

    pairs: int
    scale: float
    """s: how many times further than trained."""
    start_tokens: tuple[int, ...] = START_TOKENS
    beyond: float = BEYOND

    @property
    def highest(self) -> int:
        """Of a divisor, in hundredths."""
        return max(STEPS, int(STEPS * self.scale * self.beyond + 1e-6))

    @property
    def full(self) -> int:
        """Position interpolation's divisor, s itself, in hundredths."""
        return min(self.highest, round(STEPS * self.scale))

    def __contains__(self, it: Individual) -> bool:
        genes = (STEPS, *it.hundredths, self.highest)
        rising = all(low <= high for low, high in pairwise(genes))
        return rising and len(genes) == self.pairs + 2 and it.start_tokens in self.start_tokens

    def nearest(self, factors: Iterable[float], start_tokens: int = 0) -> Individual:
        """These divisors as one of the space: rounded, within bounds, none below the one before."""
        inside = (min(max(round(STEPS * f), STEPS), self.highest) for f in factors)
        known = start_tokens in self.start_tokens
        return Individual(
            tuple(accumulate(inside, max)), start_tokens if known else self.start_tokens[0]
        )


class Scheme(ABC):
    """A way to make new individuals of old ones; all it makes are of its space."""

    beyond = BEYOND

    def __init__(self, space: Space, chance: Random) -> None:
        self.space, self.chance = space, chance

    @abstractmethod
    def shaken(self, genes: list[int]) -> range:
        """Move what the scheme keeps fixed, in place; which pairs may then be drawn anew."""

    @abstractmethod
    def shaped(self, genes: list[int], like: Individual) -> None:
        """Take from the other parent what the scheme keeps fixed, perhaps, in place."""

    def mutant(self, parent: Individual, known: Collection[Individual]) -> Individual | None:
        """An individual that is not known: changes add up until it is new; None if none is found.

        Each divisor is drawn anew, with a chance of 0.3, from what its neighbours leave it.
        """
        genes, start = list(parent.hundredths), parent.start_tokens
        for _ in range(TRIES):
            free = self.shaken(genes)
            for i in free:
                if self.chance.random() < MUTATED:
                    genes[i] = self.chance.randint(*self._between(genes, i))
            if self.chance.random() < MUTATED:
                start = self.chance.choice(self.space.start_tokens)
            made = Individual(tuple(genes), start)
            if made not in known:
                return made
        return None

    def child(
        self, better: Individual, other: Individual, known: Collection[Individual]
    ) -> Individual | None:
        """The better parent with divisors of the other: the first mix that is new and rising.

        One that is out of order stays for the next to put right. None if no sweep finds any.
        """
        genes = list(better.hundredths)
        self.shaped(genes, other)
        start = self.chance.choice((better, other)).start_tokens
        for i in list(range(self.space.pairs)) * SWEEPS:
            if self.chance.random() < MUTATED and self.chance.random() < SWAPPED:
                genes[i] = other.hundredths[i]
                made = Individual(tuple(genes), start)
                if made in self.space and made not in known:
                    return made
        return None

    def _between(self, genes: list[int], i: int) -> tuple[int, int]:
        """The lowest and the highest that keep the divisors rising."""
        low = genes[i - 1] if i else STEPS
        high = genes[i + 1] if i + 1 < len(genes) else self.space.highest
        return low, high


class DimMono(Scheme):
    """Every divisor by itself."""

    def shaken(self, genes: list[int]) -> range:
        return range(len(genes))

    def shaped(self, genes: list[int], like: Individual) -> None: ...


class DimPieceMono(Scheme):
    """Three pieces: fast pairs as they are, slow ones divided by s, and a rise between them.

    A piece is what it looks like: the leading divisors of 1, the trailing ones of s. The published
    code carries the two borders along as integers, starts them at (0, 0), whatever the individual
    looks like, and lets divisors out of their piece.
    """

    beyond = 1.0

    def shaken(self, genes: list[int]) -> range:
        """Move one border by some pairs."""
        first, last = self.borders(genes)
        while True:
            step = round(self.chance.gauss(0, JITTER))
            a, b = (first + step, last) if self.chance.random() < 0.5 else (first, last + step)
            if 0 <= a < b <= len(genes):
                self._pin(genes, a, b)
                return range(a, b)

    def shaped(self, genes: list[int], like: Individual) -> None:
        """Both borders are swapped together, with an even chance."""
        if self.chance.random() < SWAPPED:
            self._pin(genes, *self.borders(like.hundredths))

    def borders(self, genes: Collection[int]) -> tuple[int, int]:
        """How many first pairs are left as they are; how many lie before those divided by s."""
        first = sum(gene == STEPS for gene in genes)
        return first, max(first, sum(gene < self.space.full for gene in genes))

    def _pin(self, genes: list[int], a: int, b: int) -> None:
        genes[:a] = [STEPS] * a
        genes[b:] = [self.space.full] * (len(genes) - b)


SCHEMES: dict[str, type[Scheme]] = {"dim-mono": DimMono, "dim-piece-mono": DimPieceMono}
