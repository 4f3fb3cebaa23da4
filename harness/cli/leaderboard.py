"""`harness leaderboard`: everything that was measured, ranked, as a page and as text."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from harness.cli.look import Folder, existing, not_all_broken, readme_of
from harness.cli.settle import settle

if TYPE_CHECKING:
    from harness.cell import Cell, Result
    from harness.store import Store

HELP = (
    "Rank what was measured by effective context length, and write LEADERBOARD.md and "
    "leaderboard.html into the results folder.\n\n"
    "The page is one file that loads nothing. Published tables (published/ in that folder) stand "
    "beside the measured rows and are not ranked. If the README.md beside the folder has a line "
    "<!-- leaderboard --> and a line <!-- /leaderboard -->, the summary is put between them, "
    "unless another folder's stands there."
)
FEW = 50_000
"""Cells of a leaderboard that says of every row where its number comes from."""
EXAMPLES = "harness leaderboard\n\nharness leaderboard --results results --check"


def leaderboard(
    folder: Folder = Path("results"),
    check: Annotated[
        bool, Option("--check", help="Change nothing; exit with 1 if a file is behind.")
    ] = False,
) -> None:
    """Write LEADERBOARD.md and leaderboard.html."""
    if code := settle(_pages(folder), check):
        raise typer.Exit(code)


def _pages(folder: Path) -> dict[Path, str]:
    """What each file should say."""
    from harness.archive import columns
    from harness.published import published
    from harness.report.beside import beside
    from harness.report.board import COLUMNS, board
    from harness.report.page import fitting
    from harness.report.ranking import brief, ranking, refreshed
    from harness.store import Broken, Store
    from harness.window import windows

    store, broken = Store(existing(folder)), list[Broken]()
    table = columns(folder, only=COLUMNS, broken=broken)
    not_all_broken(folder, table.num_rows, broken)
    printed = beside(published(folder / "published"))
    look = _look(store, table.num_rows)
    found = board(table, windows(store), items=lambda cell: _items(look(cell)))
    count = sum(len(section["rows"]) for section in printed)
    page, shown = fitting(found, printed, look)
    pages = {
        folder / "LEADERBOARD.md": ranking(found, count, on_page=shown),
        folder / "leaderboard.html": page,
    }
    if readme := readme_of(folder):
        before = readme.read_text("utf-8")
        after = refreshed(before, lambda: brief(found, folder.resolve().name))
        pages |= {readme: after} if after != before else {}
    return pages


def _look(store: "Store", cells: int) -> "Callable[[Cell], Result | None]":
    """A cell's whole result; of one in a pack only where there are few, for each is sought."""
    if cells <= FEW:
        return store.get
    return lambda cell: store.get(cell) if store.path(cell).exists() else None


def _items(result: "Result | None") -> "Mapping[str, float]":
    return result.items if result else {}
