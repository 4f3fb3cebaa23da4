"""The window that a model was pretrained on, as far as its results or its card tell."""

import re
from collections.abc import Callable

from harness.cell import Cell, Result, in_any_dtype
from harness.store import Store


def windows(store: Store) -> Callable[[Cell], int | None]:
    """Of a cell's base model, in tokens; None where neither this cell nor one before says it."""
    found: dict[str, int] = {}

    def of_base(cell: Cell) -> int | None:
        from harness.model import KNOWN

        if cell.base not in found:
            said = re.search(r"original length (\d+)", KNOWN.get(in_any_dtype(cell.base), ""))
            if window := int(said[1]) if said else _told(store.get(cell)):
                found[cell.base] = window
        return found.get(cell.base)

    return of_base


def _told(result: Result | None) -> int | None:
    """By a cell that was read."""
    facts = result.provenance if result else {}
    training = facts.get("training") or {}
    return facts.get("original_length") or training.get("original_length")
