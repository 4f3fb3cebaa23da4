"""What results name by content and lies with them: adapters that were trained, and questions.

Adapters lie in `training/NAME/adapter` of a folder of results, questions in a folder of a folder
beside it. No model is read for it.
"""

from collections.abc import Iterable
from contextlib import suppress
from glob import escape
from pathlib import Path

from harness import adapters
from harness.catalog import split
from harness.cell import STAMP, Cell, unstamped
from harness.corpora import label_of_questions


def near(results: Path, cells: Iterable[Cell]) -> dict[str, str]:
    """By its name in results, where it is from the folder above them.

    Args:
        results: their folder.
        cells: whose questions are sought.
    """
    top = results.resolve()
    found = {}
    for place in sorted((top / "training").glob(f"*/{adapters.ADAPTER}")):
        with suppress(LookupError, ValueError, OSError):  # others may be whole
            found[adapters.spec_of(place)] = place
    asked = {split(task)[1].get("data", "") for task in {cell.task for cell in cells}}
    for label in filter(STAMP.search, asked):
        for place in sorted(top.parent.glob(f"*/*/{escape(unstamped(label))}")):
            with suppress(LookupError, ValueError, OSError):
                if label_of_questions(str(place)) == label:
                    found[label] = place
    return {name: place.relative_to(top.parent).as_posix() for name, place in found.items()}


def near_here(results: Path, cells: Iterable[Cell]) -> dict[str, str]:
    """As `near`, from the folder one is in."""
    above, here = results.resolve().parent, Path.cwd()
    whole = {name: above / place for name, place in near(results, cells).items()}
    return {
        name: str(place.relative_to(here) if place.is_relative_to(here) else place)
        for name, place in whole.items()
    }
