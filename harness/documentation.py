"""The pages that say what the code says, made from it: the command reference, and measured tables.

A page holds a table of protocols between `<!-- protocols:FOLDER CONDITIONS -->` and
`<!-- /protocols -->`: every protocol that was measured on one model and text, with what it reads.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.cell import Result
from harness.lengths import label
from harness.report.sheet import entry, named, readable

TOP = """\
# Commands

Made by `harness docs` from the command line itself; change the help there, not this page.
`harness VERB --help` says the same in a terminal, and `harness --install-completion` teaches your
shell the verbs and flags.
"""
MARK = r"(<!-- protocols:(\S+)([^\n]*?)-->\n).*?(<!-- /protocols -->)"


def reference(app: Any) -> str:
    """Every verb in the order of `harness --help`: what it does, its words, examples.

    Args:
        app: the command line, as typer makes it.
    """
    found = list(_commands(app, "harness"))
    lines = [f"- [{name}](#{name.replace(' ', '-')}): {_first(c)}" for name, c in found]
    options = _table(app.params)
    return (
        "\n\n".join(
            [TOP.strip(), "\n".join(lines), "## harness", options, *(_page(n, c) for n, c in found)]
        )
        + "\n"
    )


def protocols(results: Sequence[Result]) -> str:
    """Protocols down, what was read across: one table of Markdown.

    Raises:
        ValueError: there is nothing to show.
    """
    cells = {(r.cell.task, named(r.cell), r.cell.length): r for r in results}
    if not cells:
        raise ValueError("No result is meant by these conditions: there is no table to make.")
    for kind, found in (("model", {r.cell.model for r in results}),
                        ("text", {r.corpus for r in results if r.corpus})):  # fmt: skip
        if len(found) > 1:
            raise ValueError(
                f"A table of protocols is of one {kind}, and here are {', '.join(sorted(found))}."
            )
    tasks = dict.fromkeys(task for task, _, _ in cells)
    columns = sorted({(method, length) for _, method, length in cells}, key=_plain_first)
    heads = " | ".join(f"{method}, {label(length)}" for method, length in columns)
    lines = [f"| protocol | {heads} | tokens read |", "|---" + "|--:" * (len(columns) + 1) + "|"]
    for task in sorted(tasks, key=lambda t: (t.partition(",")[0] != "perplexity.whole", t)):
        row = [cells.get((task, *column)) for column in columns]
        read = max(result.tokens for result in row if result)
        values = " | ".join(str(entry(result)) for result in row)
        lines.append(f"| {_protocol(task)} | {values} | {read:,} |")
    return "\n".join(lines)


def pages(folder: Path, app: Any) -> Iterator[tuple[Path, str]]:
    """Each page that is made, in part or as a whole, as it should be.

    Raises:
        ValueError: there is no such folder, or a table has no results.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: say where the pages are with --folder.")
    yield folder / "commands.md", reference(app)
    for page in sorted(folder.glob("*.md")):
        text = page.read_text("utf-8")
        if re.search(MARK, text, re.DOTALL):
            yield page, re.sub(MARK, lambda m: _remade(m, folder), text, flags=re.DOTALL)


def _remade(mark: re.Match[str], folder: Path) -> str:
    from harness import archive

    found = archive.found(folder / mark[2], mark[3].strip() or None).results
    return f"{mark[1]}\n{protocols(found)}\n\n{mark[4]}"


def _plain_first(column: tuple[str, int]) -> tuple[int, bool, str]:
    method, length = column
    return length, method != "none", method


def _protocol(task: str) -> str:
    """As it is read best; corpus and number of documents, which all share, stand in the text."""
    _, *parameters = readable(task).split(", ")
    own = [p for p in parameters if not p.startswith(("corpus", "samples", "reach"))]
    return ", ".join([f"`{task.partition(',')[0].partition('.')[2]}`", *own])


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for verb, inner in command.commands.items():
        if not inner.hidden:
            yield f"{name} {verb}", inner
            if hasattr(inner, "commands"):
                yield from _commands(inner, f"{name} {verb}")


def _page(name: str, command: Any) -> str:
    parts = [f"## {name}", _plain(command.help or "")]
    parts.append(_table(command.params))
    if command.epilog:
        examples = "\n".join(filter(None, command.epilog.split("\n")))
        parts.append(f"```\n{examples}\n```")
    return "\n\n".join(filter(None, parts))


def _table(parameters: Iterable[Any]) -> str:
    rows = [(_written(p), _plain(p.help or "")) for p in parameters if not p.hidden]
    lines = [f"| {left} | {right} |" for left, right in rows]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else ""


def _written(parameter: Any) -> str:
    """`--method, -m NAMES`, or an argument's name."""
    if parameter.param_type_name == "argument":
        return f"`{_plain(parameter.metavar or parameter.name.upper())}`"
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {_value(parameter)}"
    return f"`{_plain(names + value)}`"


def _value(parameter: Any) -> str:
    """What stands behind a flag: its choices where it has some."""
    choices = getattr(parameter.type_descriptor.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return "|".join(choices)
    return parameter.metavar or "VALUE"


def _first(command: Any) -> str:
    """The first paragraph of its help."""
    return _plain((command.help or "").split("\n\n")[0])


def _plain(text: str) -> str:
    """For a cell of a table: one line for each paragraph, and no bar that ends it."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs).replace("|", r"\|").replace("<", "&lt;")
