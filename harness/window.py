"""The window that a model was pretrained on, as far as its results or its card tell."""

import re
from collections.abc import Callable
from functools import cache

from harness.cell import Cell
from harness.store import Store


def windows(store: Store) -> Callable[[Cell], int | None]:
    """Of a cell's base model, in tokens; None where nothing says it. Each is looked up once."""

    @cache
    def of_base(base: str, cell: Cell) -> int | None:
        from harness.model import KNOWN

        said = re.search(r"original length (\d+)", KNOWN.get(base, ""))
        if said:
            return int(said[1])
        result = store.get(cell)
        facts = result.provenance if result else {}
        training = facts.get("training") or {}
        return facts.get("original_length") or training.get("original_length")

    return lambda cell: of_base(cell.base, cell)
