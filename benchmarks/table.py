"""The table in README.md, from the figures that the scripts kept with --json."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
COLUMNS = ("script", "measured", "ours", "peer", "ratio", "bar", "reached", "machine, date")


def table(figures: list[dict[str, Any]]) -> str:
    """Markdown, a line for each row of each script."""
    lines = [_line(COLUMNS), _line("---" for _ in COLUMNS)]
    return "\n".join([*lines, *(_line(cells) for kept in figures for cells in _cells(kept))])


def write(readme: Path, figures: Path) -> None:
    """Put the table between the marks of the README.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} has no place for the table: put {BEGIN} and {END} into it.")
    kept = [json.loads(path.read_text("utf-8")) for path in sorted(figures.glob("*.json"))]
    made = table(kept) if kept else "No script has been run at full size and kept yet."
    readme.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", "utf-8")


def _cells(kept: dict[str, Any]) -> list[tuple[str, ...]]:
    newest = "".join(f" ({flag})" for flag in kept.get("features", [])[-1:])
    where = f"{kept['machine']}{newest}, {kept['cores']} cores, {kept['date']}"
    said = {True: "yes", False: "**no**", None: ""}
    return [
        (
            f"`{kept['script']}`",
            *(row[key] for key in ("what", "ours", "peer", "ratio", "bar")),
            said[row["reached"]],
            where,
        )
        for row in kept["rows"]
    ]


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    write(HERE / "README.md", HERE / "figures")
