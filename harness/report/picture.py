"""A terminal as a picture: a command and the tables it printed, an SVG that needs nothing else."""

import io
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.cell import Result
from harness.disk import write_whole
from harness.report.live import duration, size
from harness.report.sheet import sheets
from harness.report.table import drawn

WIDTH = 92
FONTS = "'DejaVu Sans Mono', Menlo, Consolas, monospace"


def picture(words: Sequence[str], results: Iterable[Result]) -> str:
    """What a person saw who gave this command, when it was done.

    Args:
        words: the command, its name first.
        results: those of its grid.
    """
    found = list(results)
    screen = Console(
        record=True, file=io.StringIO(), width=WIDTH, force_terminal=True,
        color_system="truecolor", highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    for line in _command(words):
        screen.print(Text(line, "bold"))
    screen.print()
    for sheet in sheets(found):
        screen.print(drawn(sheet, WIDTH))
        screen.print()
    most = max((result.peak_memory for result in found), default=0)
    screen.print(
        Text(
            f"{len(found)} cells · {duration(sum(result.seconds for result in found))} · "
            f"{size(most)} at most",
            "dim",
        )
    )
    svg = screen.export_svg(title="harness", unique_id="harness")
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)  # fonts of the web
    return "\n".join(line.rstrip() for line in svg.replace("Fira Code", FONTS).splitlines()) + "\n"


def save(path: Path, words: Sequence[str], results: Iterable[Result]) -> None:
    """Write it.

    Raises:
        ValueError: the file is not to be an SVG.
    """
    if path.suffix != ".svg":
        raise ValueError(f"--record writes an SVG: give it a name such as {path.stem}.svg.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, picture(words, results))


def _command(words: Sequence[str]) -> list[str]:
    """As typed, gone on below where it is too long."""
    lines = ["$"]
    for word in words:
        word = shlex.quote(word)
        if len(lines[-1]) + len(word) > WIDTH - 4:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return lines
