"""What a person asks of a search, and what they are told of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from harness.search.evolution import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from harness.rope import Encoding, Rope


@runtime_checkable
class Rescaling(Protocol):
    """A method with a divisor for each pair: what can be searched for."""

    def encoded(
        self, rope: "Rope", factors: Sequence[float], start_tokens: int, scale: float
    ) -> "Encoding": ...

    def found(self, rope: "Rope") -> tuple[str, dict[str, Any] | None]:
        """Where the factors it has now are from, and they; None where it has none."""

    def started(self, rope: "Rope", scale: float) -> "Tensor":
        """The divisors it has without any factors, (dim/2,)."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asked to be searched."""

    target: int
    """Tokens to extend to."""
    model: str = "toy"
    method: str = "longrope"
    """Spec; with `factors=FILE` the search starts from those, stretched as far as it must."""
    corpus: str | None = None
    samples: int = 5
    """Documents."""
    start_tokens: int | None = None
    """n-hat; None: searched."""
    settings: Settings = field(default_factory=Settings)
    output: Path | None = None
    """The factors' file; None: named after method, model and target, in this folder."""
    append: Path | None = None
    """Instead: a file of factors for longer inputs, which gets a part for inputs up to here."""
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a search is, for a display."""

    generation: int
    generations: int
    evaluations: int
    """Individuals looked at."""
    of: int
    read: int
    """Documents read by this process."""
    left: int
    """Documents at most left to read."""
    saved: int
    """Documents that racing left unread."""
    best: float | None
    """The lowest perplexity so far."""


class Watch(Protocol):
    """Who is told how a search comes along."""

    def stands(self, it: Standing) -> None:
        """A document was read."""

    def generation(self, it: Standing) -> None:
        """A generation is done, and saved."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a search will take at most: racing leaves documents unread."""

    evaluations: int
    documents: int
    done: int
    """Of the documents: read before, by a search that was cut short."""
    tokens: int
    seconds: float
    bytes: int
