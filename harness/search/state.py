"""A search on disk: every loss it has read, so that the same command goes on from there.

What is random in a search follows from its seed, and each choice from the losses. So the losses are
all there is to keep: a second start proposes the same individuals and finds their losses here.
"""

import json
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

from harness.disk import read_json, write_whole
from harness.search.evolution import Table
from harness.search.space import Individual


@dataclass
class State:
    """One file, written whole after every document that is read."""

    place: Path
    search: dict[str, Any]
    """What tells this search from another: model, target, corpus, settings."""
    table: Table = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """A line for each generation, for people; made anew by a second start."""

    @classmethod
    def opened(cls, place: Path, search: dict[str, Any]) -> "State":
        """As it was left; empty where there is none.

        Raises:
            ValueError: it is of another search, or is no state.
        """
        state = cls(place, search)
        try:
            kept = read_json(place)
            then, individuals = kept["search"], kept["individuals"]
            for one in individuals:
                it = Individual(tuple(one["hundredths"]), one["start_tokens"])
                state.table[it] = [inf if loss is None else loss for loss in one["losses"]]
        except FileNotFoundError:
            return state
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{place} does not hold a search that can be gone on with: delete it, or give "
                "another --output."
            ) from None
        if search.get("weights") is None:  # on the hub: to be compared when they are read
            search["weights"] = then.get("weights")
        for name in search.keys() | then.keys():
            state.see_the_same(name, then.get(name), search.get(name))
        return state

    def see_the_same(self, name: str, then: Any, now: Any) -> None:
        """Raises ValueError: a search that differs in this is another."""
        if then != now:
            raise ValueError(
                f"{self.place} is of a search with {name.replace('_', ' ')} {then}, not {now}: "
                "give another --output, or delete it to start anew."
            )

    def of_weights(self, weights: str) -> None:
        """Note whose losses these are, once that is known.

        Raises:
            ValueError: those of before were of others.
        """
        if self.search.get("weights") is None:
            self.search["weights"] = weights
        self.see_the_same("weights", self.search["weights"], weights)

    def write(self) -> None:
        individuals = [
            {
                "hundredths": it.hundredths,
                "start_tokens": it.start_tokens,
                "losses": [loss if isfinite(loss) else None for loss in row],
            }
            for it, row in self.table.items()
        ]
        kept = {"search": self.search, "history": self.history, "individuals": individuals}
        write_whole(self.place, json.dumps(kept, allow_nan=False))
